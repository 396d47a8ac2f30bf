//! Two services of one trust domain, each behind an Envoy of its own:
//!
//! ```text
//! client → frontend's Envoy → mTLS → backend's Envoy → app
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::app::App;
use crate::envoy::{Bootstrap, Envoy};
use crate::{Domain, binaries, load, ports, wait};

/// Where the agent's socket stands in the files of `envoy/`.
const SOCKET: &str = "/tmp/spire-agent/public/api.sock";

/// Copies of Envoy under paths of their own, registered as `/frontend` and `/backend`.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Registered as `/frontend`.
    pub frontend: PathBuf,
    /// Registered as `/backend`.
    pub backend: PathBuf,
    /// The ID of that entry.
    pub backend_entry: String,
}

/// Two running Envoys and the app.
#[derive(Debug)]
pub struct Mesh {
    /// The Envoy before the app.
    pub backend: Envoy,
    /// Where it takes mTLS.
    pub inbound: SocketAddr,
    /// The Envoy beside the client.
    pub frontend: Envoy,
    /// Where it takes plain HTTP.
    pub outbound: SocketAddr,
    app: App,
    expected: String,
}

impl Programs {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When there is no Envoy, or the server refuses an entry.
    pub async fn register(domain: &Domain) -> Result<Self> {
        let frontend = program(domain, "frontend")?;
        domain.register("/frontend", &frontend).await?;
        let backend = program(domain, "backend")?;
        Ok(Self {
            backend_entry: domain.register("/backend", &backend).await?,
            frontend,
            backend,
        })
    }
}

impl Mesh {
    /// Starts both Envoys from these files of `envoy/`, and waits until a request has come through.
    ///
    /// # Errors
    /// When an Envoy does not become live, or no request comes through in time.
    pub async fn start(
        domain: &Domain,
        programs: &Programs,
        name: &str,
        inbound: Bootstrap,
        outbound: Bootstrap,
    ) -> Result<Self> {
        let app = App::start().await?;
        let (mtls, plain) = (ports::free()?, ports::free()?);
        let (backend_admin, frontend_admin) = (ports::free()?, ports::free()?);
        let inbound = inbound
            .replace("port_value: 8443", &format!("port_value: {mtls}"))?
            .replace("port_value: 8081", &format!("port_value: {}", app.port))?;
        let inbound = at_home(domain, inbound, backend_admin)?;
        let outbound = outbound
            .replace("port_value: 8443", &format!("port_value: {mtls}"))?
            .replace("port_value: 8080", &format!("port_value: {plain}"))?;
        let outbound = at_home(domain, outbound, frontend_admin)?;
        let start = |service: &str, program, bootstrap, admin| {
            let name = format!("{name}-{service}");
            Envoy::start(&name, program, bootstrap, admin, domain.folder())
        };
        let mut mesh = Self {
            backend: start("backend", &programs.backend, &inbound, backend_admin)?,
            inbound: ports::local(mtls),
            frontend: start("frontend", &programs.frontend, &outbound, frontend_admin)?,
            outbound: ports::local(plain),
            app,
            expected: format!("hello {}", domain.id("/frontend")),
        };
        mesh.backend.ready().await?;
        mesh.frontend.ready().await?;
        mesh.passes().await?;
        Ok(mesh)
    }

    /// Waits until a request comes through, and the app sees who sent it.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn passes(&self) -> Result<()> {
        wait::until("a request to come through both Envoys", || async {
            let answer = load::get(self.outbound, "/").await?;
            ensure!(
                answer.status == 200 && answer.body.trim() == self.expected,
                "{}: {}",
                answer.status,
                answer.body
            );
            Ok(Some(()))
        })
        .await
    }

    /// What the app answers when it sees `/frontend`.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// The port of the app.
    #[must_use]
    pub fn app_port(&self) -> u16 {
        self.app.port
    }
}

/// A copy of Envoy that no other process runs; not registered.
///
/// # Errors
/// When there is no Envoy.
pub fn program(domain: &Domain, name: &str) -> Result<PathBuf> {
    binaries::alias(&binaries::envoy()?, &domain.path(&format!("{name}-envoy")))
}

/// The configuration with the domain's socket, and an admin port in place of the file's.
///
/// # Errors
/// When it names no socket of the agent, or no admin port.
pub fn at_home(domain: &Domain, bootstrap: Bootstrap, admin: u16) -> Result<Bootstrap> {
    let placeholder = (9901..=9904)
        .map(|port| format!("port_value: {port}}}"))
        .find(|port| bootstrap.as_str().contains(port));
    let placeholder = placeholder.unwrap_or_default();
    ensure!(
        !placeholder.is_empty(),
        "no admin port in the configuration"
    );
    bootstrap
        .replace(&placeholder, &format!("port_value: {admin}}}"))?
        .replace(SOCKET, &domain.agent_socket().to_string_lossy())
}
