//! The demo's Envoys: each a program under a path of its own, by which the agent tells it from the others.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use e2e::envoy::Bootstrap;
use e2e::{Domain, Envoy, binaries, ports, wait};
use serde_json::Value;

/// One Envoy, and where it listens.
pub(crate) struct Sidecar {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) port: u16,
    pub(crate) admin: u16,
    pub(crate) envoy: Envoy,
}

/// What an Envoy holds of an SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: String,
    pub(crate) serial: String,
    pub(crate) valid_until: String,
}

impl Sidecar {
    /// In front of the app at `app`: `envoy/inbound.yaml`.
    pub(crate) fn inbound(name: &'static str, domain: &Domain, app: u16) -> Result<Self> {
        let (admin, port) = (ports::free()?, ports::free()?);
        let bootstrap = Bootstrap::read("inbound.yaml")?
            .replace("port_value: 9901", &format!("port_value: {admin}"))?
            .replace("port_value: 8443", &format!("port_value: {port}"))?
            .replace("port_value: 8081", &format!("port_value: {app}"))?;
        Self::start(name, domain, &bootstrap, port, admin)
    }

    /// Beside a client that calls the mTLS port `backend`: `envoy/outbound.yaml`.
    pub(crate) fn outbound(name: &'static str, domain: &Domain, backend: u16) -> Result<Self> {
        let (admin, port) = (ports::free()?, ports::free()?);
        let bootstrap = Bootstrap::read("outbound.yaml")?
            .replace("port_value: 9902", &format!("port_value: {admin}"))?
            .replace("port_value: 8080", &format!("port_value: {port}"))?
            .replace("port_value: 8443", &format!("port_value: {backend}"))?;
        Self::start(name, domain, &bootstrap, port, admin)
    }

    fn start(
        name: &'static str,
        domain: &Domain,
        bootstrap: &Bootstrap,
        port: u16,
        admin: u16,
    ) -> Result<Self> {
        let socket = domain.agent_socket();
        let bootstrap = bootstrap.clone().replace(
            "/tmp/spire-agent/public/api.sock",
            &socket.to_string_lossy(),
        )?;
        let program = program(name, domain)?;
        let envoy = Envoy::start(name, &program, &bootstrap, admin, domain.folder())?;
        Ok(Self {
            name,
            program,
            port,
            admin,
            envoy,
        })
    }

    /// The selector by which the agent knows it.
    pub(crate) fn selector(&self) -> String {
        format!("unix:path:{}", self.program.display())
    }

    /// The SVID it serves with now; `None` when it has none.
    pub(crate) async fn held(&self) -> Result<Option<Held>> {
        let page = self.envoy.admin("/certs").await?;
        let page: Value = serde_json::from_str(&page).context("Envoy's /certs")?;
        let contexts = page["certificates"].as_array().into_iter().flatten();
        let mut chains = contexts.filter_map(|context| context["cert_chain"].get(0));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(chains.next().map(|leaf| Held {
            id: text(&leaf["subject_alt_names"][0]["uri"]),
            serial: text(&leaf["serial_number"]),
            valid_until: text(&leaf["expiration_time"]),
        }))
    }

    /// Waits until it serves with an SVID.
    pub(crate) async fn served(&mut self) -> Result<Held> {
        self.envoy.ready().await?;
        let log = self.envoy.process().log_path().display().to_string();
        let what = format!("{}'s Envoy to hold an SVID (its log: {log})", self.name);
        wait::until(&what, || self.held()).await
    }
}

/// Envoy under the path of `name`.
pub(crate) fn program(name: &str, domain: &Domain) -> Result<PathBuf> {
    alias(&binaries::envoy()?, name, domain)
}

/// `program` under the path of `name` in the domain's folder.
pub(crate) fn alias(program: &Path, name: &str, domain: &Domain) -> Result<PathBuf> {
    let path = domain.path("bin");
    std::fs::create_dir_all(&path)?;
    binaries::alias(program, &path.join(name))
}
