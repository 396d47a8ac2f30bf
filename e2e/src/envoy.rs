//! Real Envoys, configured from `envoy/` with nothing but ports, paths and names changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Process;
use crate::{binaries, load, ports, wait};

/// Which SDS protocol the configuration speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sds {
    /// `StreamSecrets`.
    StateOfTheWorld,
    /// `DeltaSecrets`.
    Delta,
}

/// How Envoy checks its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// Envoy's SPIFFE validator: per trust domain.
    Spiffe,
    /// Plain CA certificates.
    PlainCa,
}

/// A configuration from `envoy/`, with its placeholders still in place.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    text: String,
}

impl Bootstrap {
    /// Reads `envoy/{name}`.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn read(name: &str) -> Result<Self> {
        let path = binaries::repository("envoy").join(name);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { text })
    }

    /// A configuration given as text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
        }
    }

    /// `from` replaced by `to` wherever it stands.
    ///
    /// # Errors
    /// When it stands nowhere: the file has changed and this test with it must.
    pub fn replace(self, from: &str, to: &str) -> Result<Self> {
        anyhow::ensure!(
            self.text.contains(from),
            "the configuration does not hold {from:?}"
        );
        Ok(Self {
            text: self.text.replace(from, to),
        })
    }

    /// The incremental form turned into `sds`.
    ///
    /// # Errors
    /// When the file is not written in the incremental form.
    pub fn speaking(self, sds: Sds) -> Result<Self> {
        match sds {
            Sds::Delta => Ok(self),
            Sds::StateOfTheWorld => self.replace("api_type: DELTA_GRPC", "api_type: GRPC"),
        }
    }

    /// The node's metadata set so that the agent answers in this form.
    ///
    /// # Errors
    /// When the file has no `node:`.
    pub fn validating(self, validation: Validation) -> Result<Self> {
        match validation {
            Validation::Spiffe => Ok(self),
            Validation::PlainCa => self.replace(
                "node:\n",
                "node:\n  metadata: {disable_spiffe_cert_validation: true}\n",
            ),
        }
    }

    /// The configuration as it stands.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What became of the updates of one secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Updates {
    /// How many Envoy took.
    pub accepted: u64,
    /// How many it did not.
    pub rejected: u64,
    /// The version it uses; Envoy does not tell one that it has from an incremental stream.
    pub version: String,
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: u16,
}

impl Envoy {
    /// Starts `program` (an alias of Envoy's binary) on `bootstrap`, whose admin port is `admin`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        name: &str,
        program: &Path,
        bootstrap: &Bootstrap,
        admin: u16,
        folder: &Path,
    ) -> Result<Self> {
        let config = write_config(name, bootstrap, folder)?;
        let log = folder.join(format!("{name}.log"));
        let args = [
            "-c",
            &config.to_string_lossy(),
            "--disable-hot-restart",
            "--concurrency",
            "1",
        ];
        Ok(Self {
            process: Process::start(name, program, args, &log)?,
            admin,
        })
    }

    /// Waits until Envoy says it is live.
    ///
    /// # Errors
    /// When it ended or does not get there in time.
    pub async fn ready(&mut self) -> Result<()> {
        let admin = self.admin;
        let process = &mut self.process;
        let log = process.log_path().to_owned();
        let what = format!("Envoy to be live (log {})", log.display());
        wait::until(&what, || {
            let alive = process.check_running();
            async move {
                alive?;
                Ok(get(admin, "/ready")
                    .await
                    .ok()
                    .filter(|answer| answer.contains("LIVE"))
                    .map(|_| ()))
            }
        })
        .await
    }

    /// One page of the admin interface.
    ///
    /// # Errors
    /// When Envoy does not answer with 200.
    pub async fn admin(&self, path: &str) -> Result<String> {
        get(self.admin, path).await
    }

    /// The serial numbers of the certificates Envoy serves now (`/certs`), lower-case hex.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn serials(&self) -> Result<Vec<String>> {
        certificates(&self.admin("/certs").await?, "cert_chain")
    }

    /// The serial numbers of the CA certificates Envoy trusts now.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn authorities(&self) -> Result<Vec<String>> {
        certificates(&self.admin("/certs").await?, "ca_cert")
    }

    /// The value of one counter or gauge; 0 when Envoy does not have it yet.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let page = self.admin("/stats").await?;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map_or(Ok(0), |value| {
            value
                .parse()
                .with_context(|| format!("stat {name}: {value}"))
        })
    }

    /// What became of the updates of its secrets so far, by secret.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn secrets(&self) -> Result<BTreeMap<String, Updates>> {
        let mut secrets: BTreeMap<String, Updates> = BTreeMap::new();
        let page = self.admin("/stats?filter=^sds%5C.").await?;
        for line in page.lines() {
            let parts = line.split_once(": ");
            let parts = parts.and_then(|(stat, value)| Some((stat.rsplit_once('.')?, value)));
            let Some(((secret, figure), value)) = parts else {
                continue;
            };
            if !["update_success", "update_rejected", "version_text"].contains(&figure) {
                continue;
            }
            let updates = secrets.entry(secret.to_owned()).or_default();
            match figure {
                "update_success" => updates.accepted = value.parse()?,
                "update_rejected" => updates.rejected = value.parse()?,
                _ => value.trim_matches('"').clone_into(&mut updates.version),
            }
        }
        Ok(secrets)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Runs `envoy --mode validate` on a configuration.
///
/// # Errors
/// With what Envoy printed, when it refuses it.
pub async fn validate(name: &str, bootstrap: &Bootstrap, folder: &Path) -> Result<()> {
    let config = write_config(name, bootstrap, folder)?;
    let output = tokio::process::Command::new(binaries::envoy()?)
        .args(["--mode", "validate", "-c"])
        .arg(&config)
        .output()
        .await?;
    let printed = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "Envoy refuses {name}:\n{printed}");
    Ok(())
}

fn write_config(name: &str, bootstrap: &Bootstrap, folder: &Path) -> Result<PathBuf> {
    let config = folder.join(format!("{name}.yaml"));
    std::fs::write(&config, bootstrap.as_str())
        .with_context(|| format!("write {}", config.display()))?;
    Ok(config)
}

async fn get(port: u16, path: &str) -> Result<String> {
    let answer = load::get(ports::local(port), path).await?;
    anyhow::ensure!(
        answer.status == 200,
        "admin {path}: status {}",
        answer.status
    );
    Ok(answer.body)
}

fn certificates(page: &str, kind: &str) -> Result<Vec<String>> {
    let page: Value = serde_json::from_str(page).context("parse Envoy's /certs")?;
    let contexts = page["certificates"].as_array().cloned().unwrap_or_default();
    let lists = contexts
        .iter()
        .filter_map(|context| context[kind].as_array());
    let mut serials: Vec<String> = lists
        .flatten()
        .filter_map(|certificate| certificate["serial_number"].as_str().map(str::to_lowercase))
        .collect();
    serials.sort();
    serials.dedup();
    Ok(serials)
}
