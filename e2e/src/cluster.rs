//! A real Kubernetes control plane on loopback: etcd, kube-apiserver and kube-controller-manager as plain processes, with
//! RBAC, the Node authorizer, NodeRestriction and PodSecurity on. Built by `e2e/tools/build-controlplane`, or the binaries
//! of `KUBEBUILDER_ASSETS`.
//!
//! One control plane costs about half a gigabyte and three seconds, so the tests of one binary share one
//! ([`Cluster::shared`]) and each makes namespaces of its own. A test that stops the API server starts its own.

mod egress;
mod objects;
mod pki;
mod programs;
mod tethered;
mod users;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::netns::NetNs;
use crate::{folder, ports, wait};

pub use pki::Identity;
pub(crate) use pki::private;
pub use tethered::Tethered;
pub(crate) use tethered::remove_at_end;
pub use users::Bound;

use egress::Egress;
use pki::Pki;
use programs::Programs;

/// The Kubernetes release everything here is tested with.
pub const KUBERNETES_VERSION: &str = "v1.37.1";

/// The first address of the service range: how a pod reaches the API server.
pub const API_SERVICE: &str = "10.96.0.1";

const SERVICES: &str = "10.96.0.0/16";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

static SHARED: OnceCell<Cluster> = OnceCell::const_new();

/// A running control plane.
#[derive(Debug)]
pub struct Cluster {
    pki: Pki,
    egress: Egress,
    ports: Ports,
    admin: PathBuf,
    programs: Programs,
    processes: Mutex<Processes>,
    // The last one: its processes end before their folder goes.
    folder: TempDir,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api: u16,
}

#[derive(Debug, Default)]
struct Processes {
    etcd: Option<Tethered>,
    api: Option<Tethered>,
    manager: Option<Tethered>,
}

/// Why no Deployment becomes pods here; none when it does.
#[must_use]
pub fn unable() -> Option<&'static str> {
    // Where there are no programs at all, a start says so better.
    let programs = Programs::find().ok()?;
    let none = programs.manager.is_none();
    none.then_some("KUBEBUILDER_ASSETS has no kube-controller-manager: no Deployment becomes pods")
}

impl Cluster {
    /// The one control plane of this process, started when first asked for. It ends with the process.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn shared() -> Result<&'static Self> {
        SHARED
            .get_or_try_init(|| async {
                let cluster = Self::start().await?;
                // A static is never dropped.
                remove_at_end(cluster.folder())?;
                Ok(cluster)
            })
            .await
    }

    /// A control plane of one's own, which ends when dropped.
    ///
    /// # Errors
    /// When the binaries are missing or it does not become ready.
    pub async fn start() -> Result<Self> {
        // Several crypto providers may be linked: say which one kube is to take. An error means that it is said already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let programs = Programs::find()?;
        let folder = folder::fresh("sgk")?;
        let pki = Pki::new(folder.path())?;
        let ports = Ports {
            etcd: ports::free()?,
            etcd_peer: ports::free()?,
            api: ports::free()?,
        };
        let mut cluster = Self {
            admin: folder.path().join("admin.kubeconfig"),
            pki,
            egress: Egress::start(folder.path())?,
            ports,
            programs,
            processes: Mutex::default(),
            folder,
        };
        cluster.admin = cluster.kubeconfig_as("admin", &["system:masters"])?;
        cluster.lock().etcd = Some(cluster.spawn_etcd()?);
        cluster.start_api_server().await?;
        cluster.lock().manager = cluster.spawn_manager()?;
        Ok(cluster)
    }

    /// Starts the API server and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub async fn start_api_server(&self) -> Result<()> {
        let process = self.spawn_api_server()?;
        self.lock().api = Some(process);
        let client = self.client()?;
        let what = format!("the API server (logs {})", self.folder().display());
        wait::until(&what, || async {
            self.check_running()?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let answer = client.request_text(request).await?;
            ensure!(answer == "ok", "/readyz: {answer}");
            Ok(Some(()))
        })
        .await
    }

    /// Kills the API server; etcd keeps its data.
    ///
    /// # Errors
    /// When it was not running.
    pub fn stop_api_server(&self) -> Result<()> {
        let process = self.lock().api.take();
        drop(process.context("the API server is running")?);
        Ok(())
    }

    /// Whether a controller manager runs: `KUBEBUILDER_ASSETS` need not have one.
    #[must_use]
    pub fn has_controllers(&self) -> bool {
        self.lock().manager.is_some()
    }

    /// `https://127.0.0.1:{port}` of the API server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api)
    }

    /// The API server's port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.api
    }

    /// A kubeconfig of `system:masters`.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// The certificate of the cluster's CA.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.pki.ca_pem()
    }

    /// The file with the certificate of the cluster's CA.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        self.pki.ca_file()
    }

    /// The folder with logs (`*.log`), keys and kubeconfigs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate signed by the cluster's CA.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue(&self, user: &str, groups: &[&str], names: &[&str]) -> Result<Identity> {
        self.pki.issue(user, groups, names)
    }

    /// Leads the API server's calls to pods and services into a node's network.
    pub(crate) fn lead_into(&self, network: NetNs) {
        self.egress.lead_into(network);
    }

    fn check_running(&self) -> Result<()> {
        let mut processes = self.lock();
        let Processes { etcd, api, manager } = &mut *processes;
        for process in [etcd, api, manager].into_iter().flatten() {
            process.check_running()?;
        }
        Ok(())
    }

    fn spawn_etcd(&self) -> Result<Tethered> {
        let args = self.programs.etcd_args(self.folder(), self.ports);
        self.spawn("etcd", &self.programs.etcd, args)
    }

    fn spawn_api_server(&self) -> Result<Tethered> {
        let file = |name: &str| self.folder().join(name).display().to_string();
        let server = self
            .pki
            .issue("kube-apiserver", &[], &pki::API_SERVER_NAMES)?
            .write(self.folder(), "apiserver")?;
        let args = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.ports.api),
            "--advertise-address=127.0.0.1".to_owned(),
            // A loopback address cannot be advertised by the other reconcilers.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--tls-cert-file={}", server.certificate.display()),
            format!("--tls-private-key-file={}", server.key.display()),
            format!("--client-ca-file={}", self.ca_file().display()),
            format!("--service-account-issuer={ISSUER}"),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--allow-privileged=true".to_owned(),
            format!(
                "--egress-selector-config-file={}",
                self.egress.config().display()
            ),
            format!("--cert-dir={}", file("apiserver")),
        ];
        self.spawn("kube-apiserver", &self.programs.api_server, args)
    }

    fn spawn_manager(&self) -> Result<Option<Tethered>> {
        let Some(command) = &self.programs.manager else {
            return Ok(None);
        };
        let file = |name: &str| self.folder().join(name).display().to_string();
        let config = self
            .kubeconfig_as("system:kube-controller-manager", &[])?
            .display()
            .to_string();
        let args = [
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            "--use-service-account-credentials".to_owned(),
            format!("--service-account-private-key-file={}", file("sa.key")),
            format!("--root-ca-file={}", self.ca_file().display()),
            format!("--cluster-signing-cert-file={}", self.ca_file().display()),
            format!("--cluster-signing-key-file={}", file("ca.key")),
            "--secure-port=0".to_owned(),
            "--leader-elect=false".to_owned(),
        ];
        let process = self.spawn("kube-controller-manager", command, args)?;
        Ok(Some(process))
    }

    fn spawn<I: IntoIterator<Item = String>>(
        &self,
        name: &str,
        (program, part): &programs::Command,
        args: I,
    ) -> Result<Tethered> {
        let args = part.iter().cloned().chain(args);
        let log = self.folder().join(format!("{name}.log"));
        Tethered::start(name, program, args, &log)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Processes> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
