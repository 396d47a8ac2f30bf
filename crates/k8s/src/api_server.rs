//! The way to the Kubernetes API server, and who is calling.

use std::path::Path;

pub use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use runtime::BoxError;

/// The API server by a kubeconfig file, or as the process finds it: the pod's service account, or the user's kubeconfig.
///
/// # Errors
/// When there is none, or it cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, BoxError> {
    // Whoever comes first sets it; everybody here sets the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await?,
    };
    Ok(Client::try_from(config)?)
}

/// A name for this process that no other has: `host` and something random.
#[must_use]
pub fn identity(host: &str) -> String {
    let mut random = [0_u8; 8];
    // Without randomness the host's name has to do; a pod's name is unique anyway.
    let _ = aws_lc_rs::rand::fill(&mut random);
    format!("{host}_{}", identity::hex(&random))
}
