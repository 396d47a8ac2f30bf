//! Where the server's and the agent's unix sockets are, and channels to them.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use hyper_util::rt::TokioIo;
use identity::EndpointAddress;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::environment;

const SERVER_SOCKET: &str = "/tmp/spire-server/private/api.sock";
const AGENT_SOCKET: &str = "/tmp/spire-agent/public/api.sock";

/// How a command finds the server.
#[derive(clap::Args, Debug)]
pub(crate) struct ServerSocket {
    /// Path of the server's private socket [default: /tmp/spire-server/private/api.sock]
    #[arg(long = "socketPath", value_name = "PATH")]
    path: Option<PathBuf>,
    /// Name of the instance, put for %i in SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE
    #[arg(long = "instance", value_name = "NAME", conflicts_with = "path")]
    instance: Option<String>,
}

impl ServerSocket {
    /// The socket's path.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let template = "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE";
        find(&self.path, &self.instance, template, SERVER_SOCKET)
    }

    /// A channel to the server.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        connect(&self.path()?).await
    }
}

/// How a command finds the agent.
#[derive(clap::Args, Debug)]
pub(crate) struct AgentSocket {
    /// Path of the agent's public socket [default: what SPIFFE_ENDPOINT_SOCKET says, or /tmp/spire-agent/public/api.sock]
    #[arg(long = "socketPath", value_name = "PATH")]
    path: Option<PathBuf>,
    /// Name of the instance, put for %i in SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE
    #[arg(long = "instance", value_name = "NAME", conflicts_with = "path")]
    instance: Option<String>,
}

/// Where workloads are told their agent is (SPIFFE_Workload_Endpoint.md §4).
const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";

impl AgentSocket {
    /// The socket's path.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let template = "SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE";
        find(&self.path, &self.instance, template, AGENT_SOCKET)
    }

    /// A channel to the agent: where a flag says, else where the environment does.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        let told = self.path.is_some() || self.instance.is_some();
        let endpoint = environment::variable(ENDPOINT).filter(|_| !told);
        let Some(endpoint) = endpoint else {
            return connect(&self.path()?).await;
        };
        let address: EndpointAddress = endpoint
            .parse()
            .with_context(|| format!("{ENDPOINT} is {endpoint:?}"))?;
        match address {
            EndpointAddress::Unix(path) => connect(&path).await,
            EndpointAddress::Tcp(address) => Endpoint::from_shared(format!("http://{address}"))?
                .connect()
                .await
                .map_err(|error| unreachable(Path::new(&endpoint), &error)),
        }
    }
}

/// A channel over the unix socket at `path`, connected.
pub(crate) async fn connect(path: &Path) -> Result<Channel> {
    let socket = path.to_owned();
    let connector = service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // Nothing reads the authority on a unix socket; it only has to be one.
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .map_err(|error| unreachable(path, &error))
}

/// Why there is no connection, and what to do about it.
fn unreachable(path: &Path, error: &(dyn Error + 'static)) -> anyhow::Error {
    let path = path.display();
    let Some(cause) = io_cause(error) else {
        return anyhow!("cannot connect to {path}: {error}");
    };
    match cause.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "cannot connect to {path}: there is no such socket; start the program, or say where \
             its socket is with -socketPath"
        ),
        io::ErrorKind::ConnectionRefused => anyhow!(
            "cannot connect to {path}: nobody listens on the socket any more; start the program \
             again, or say where its socket is with -socketPath"
        ),
        io::ErrorKind::PermissionDenied => anyhow!(
            "cannot connect to {path}: this user may not open the socket; be root, or a member of \
             its group"
        ),
        _ => anyhow!("cannot connect to {path}: {cause}"),
    }
}

fn io_cause<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    loop {
        if let Some(cause) = error.downcast_ref() {
            return Some(cause);
        }
        error = error.source()?;
    }
}

fn find(
    path: &Option<PathBuf>,
    instance: &Option<String>,
    template: &str,
    default: &str,
) -> Result<PathBuf> {
    let Some(instance) = instance else {
        return Ok(path.clone().unwrap_or_else(|| default.into()));
    };
    let Some(socket) = environment::variable(template) else {
        bail!("-instance needs {template} to be set to the sockets' path with %i for the name");
    };
    if !socket.contains("%i") {
        bail!("{template} is {socket:?}: it needs %i where the instance's name goes");
    }
    Ok(socket.replace("%i", instance).into())
}
