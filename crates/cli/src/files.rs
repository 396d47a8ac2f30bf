//! Files that client commands write.

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
