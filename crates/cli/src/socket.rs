//! Where the server's and the agent's unix sockets are, and channels to them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hyper_util::rt::TokioIo;
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
    #[allow(dead_code, reason = "for the client commands")]
    pub(crate) async fn connect(&self) -> Result<Channel> {
        connect(&self.path()?).await
    }
}

/// How a command finds the agent.
#[derive(clap::Args, Debug)]
pub(crate) struct AgentSocket {
    /// Path of the agent's public socket [default: /tmp/spire-agent/public/api.sock]
    #[arg(long = "socketPath", value_name = "PATH")]
    path: Option<PathBuf>,
    /// Name of the instance, put for %i in SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE
    #[arg(long = "instance", value_name = "NAME", conflicts_with = "path")]
    instance: Option<String>,
}

impl AgentSocket {
    /// The socket's path.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let template = "SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE";
        find(&self.path, &self.instance, template, AGENT_SOCKET)
    }

    /// A channel to the agent.
    #[allow(dead_code, reason = "for the client commands")]
    pub(crate) async fn connect(&self) -> Result<Channel> {
        connect(&self.path()?).await
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
        .with_context(|| {
            format!(
                "cannot connect to {}: is the program running?",
                path.display()
            )
        })
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
