//! Files that client commands read and write.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a secret, for the owner's eyes only.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    Ok(runtime::files::write_private(path, text.as_bytes())?)
}

/// Writes what anybody may read.
pub(crate) fn write_public(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a file, or standard input for `-`.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        return read.map(|_| text).context("cannot read standard input");
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
