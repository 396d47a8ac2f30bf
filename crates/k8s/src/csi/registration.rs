//! Making the driver known to the kubelet, without a registrar beside it.
//!
//! The kubelet watches a folder for sockets. It calls each that appears, and each that is there when it starts; so the socket
//! has to be there for good. When somebody removed it (a cleaned folder), or the kubelet did not take the driver, it is
//! made anew, which the kubelet notices.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::pluginregistration::registration_server::{Registration, RegistrationServer};
use proto::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use runtime::grpc::{self, Limits};
use runtime::listen::{ListenError, UnixListener};
use runtime::{BoxError, Part, Shutdown, Supervisor, Tasks};
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// How often it is looked whether the socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the kubelet said last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Said {
    #[default]
    Nothing,
    Registered,
    Refused,
}

/// What is told to the kubelet.
#[derive(Debug, Clone)]
pub(super) struct About {
    /// The driver's name.
    pub(super) name: String,
    /// The driver's own socket, as the kubelet sees it.
    pub(super) endpoint: String,
}

struct Registrar {
    about: About,
    said: Arc<watch::Sender<Said>>,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.about.name.clone(),
            endpoint: self.about.endpoint.clone(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus {
            plugin_registered,
            error,
        } = request.into_inner();
        if plugin_registered {
            tracing::info!(driver = self.about.name, "Registered with the kubelet");
            self.said.send_replace(Said::Registered);
        } else {
            tracing::warn!(
                driver = self.about.name,
                error,
                "the kubelet does not take the driver"
            );
            self.said.send_replace(Said::Refused);
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// One socket that is served until it is stopped.
struct Door {
    /// Device and inode.
    file: (u64, u64),
    tasks: Tasks,
    _supervisor: Supervisor,
}

impl Door {
    fn open(
        path: &Path,
        about: &About,
        said: &Arc<watch::Sender<Said>>,
    ) -> Result<Self, ListenError> {
        let listener = UnixListener::bind(path, 0o600)?;
        let registrar = Registrar {
            about: about.clone(),
            said: said.clone(),
        };
        // Tasks of its own, so that it can be closed while the program goes on.
        let (supervisor, tasks) = Supervisor::new();
        let service = Routes::new(RegistrationServer::new(registrar));
        grpc::serve(listener, service.prepare(), Limits::unix(), &tasks);
        Ok(Self {
            file: file(path).unwrap_or_default(),
            tasks,
            _supervisor: supervisor,
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// Keeps the driver registered until shutdown. `ready` is given up once the kubelet has taken it.
pub(super) async fn run(
    folder: PathBuf,
    about: About,
    ready: Part,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    let path = folder.join(format!("{}-reg.sock", about.name));
    let (said, mut heard) = watch::channel(Said::default());
    let said = Arc::new(said);
    let mut ready = Some(ready);
    let mut door = Some(Door::open(&path, &about, &said)?);
    let mut look = interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            changed = heard.changed() => {
                changed?;
                let registered = *heard.borrow_and_update() == Said::Registered;
                if registered && let Some(ready) = ready.take() {
                    ready.done();
                }
                continue;
            }
            () = shutdown.cancelled() => return Ok(()),
        }
        let there = door
            .as_ref()
            .is_some_and(|door| file(&path) == Some(door.file));
        let refused = *said.borrow() == Said::Refused;
        if there && !refused {
            continue;
        }
        if door.take().is_some() {
            tracing::info!(path = %path.display(), refused, "the registration socket is made anew");
            wait_gone(&path).await;
        }
        said.send_replace(Said::Nothing);
        match Door::open(&path, &about, &said) {
            Ok(new) => door = Some(new),
            Err(error) => {
                tracing::warn!(%error, "the registration socket cannot be made; trying again")
            }
        }
    }
}

/// The old socket's file goes with its listener, a moment after it was stopped.
async fn wait_gone(path: &Path) {
    let gone = async {
        let mut tries = interval(Duration::from_millis(10));
        while file(path).is_some() {
            tries.tick().await;
        }
    };
    // If it stays, binding says why.
    let _ = timeout(Duration::from_secs(1), gone).await;
}

fn file(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
