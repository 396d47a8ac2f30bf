//! What each node attestor sends, and how it answers a challenge.

mod x509pop;

use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use crate::config::{JoinToken, NodeAttestor};

pub use self::x509pop::X509Pop;

/// The attestor's name on the wire.
pub const JOIN_TOKEN: &str = "join_token";
/// The attestor's name on the wire.
pub const X509POP: &str = "x509pop";
/// The attestor's name on the wire.
pub const K8S_PSAT: &str = "k8s_psat";

/// Why a proof cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// No join token, and no agent SVID either.
    #[error(
        "no join token and no usable agent SVID on disk: make a token with `signet server token generate` and start the \
         agent with `-joinToken <token>`"
    )]
    NoToken,
    /// A file cannot be read.
    #[error("reading {path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path}: {reason}")]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The challenge is not this attestor's.
    #[error("the server's challenge is not one of {0}: {1}")]
    Challenge(&'static str, String),
    /// Signing failed.
    #[error("signing the server's challenge failed")]
    Sign,
}

/// A node attestor, ready to prove.
#[derive(Debug)]
pub enum Proof {
    /// A token, used up by the first success.
    JoinToken(JoinToken),
    /// A certificate's key.
    X509Pop(Box<X509Pop>),
    /// A service account's token, fresh each time.
    K8sPsat {
        /// The cluster's name at the server.
        cluster: String,
        /// The token.
        token: ServiceAccountToken,
    },
}

/// A service account's token: a secret.
pub struct ServiceAccountToken(Zeroizing<String>);

impl std::fmt::Debug for ServiceAccountToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceAccountToken(<redacted>)")
    }
}

impl ServiceAccountToken {
    fn read(path: &Path) -> Result<Self, ProofError> {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|source| ProofError::File {
            path: path.to_owned(),
            source,
        })?;
        let token = text.trim();
        if token.is_empty() {
            return Err(ProofError::Content {
                path: path.to_owned(),
                reason: "is empty; a projected service account token is expected".to_owned(),
            });
        }
        Ok(Self(Zeroizing::new(token.to_owned())))
    }
}

impl Proof {
    /// Reads what the attestor needs, anew each time, since files are replaced over an agent's life.
    ///
    /// # Errors
    /// When something is missing or wrong.
    pub fn load(attestor: &NodeAttestor) -> Result<Self, ProofError> {
        match attestor {
            NodeAttestor::JoinToken(None) => Err(ProofError::NoToken),
            NodeAttestor::JoinToken(Some(token)) => Ok(Self::JoinToken(token.clone())),
            NodeAttestor::X509Pop(files) => Ok(Self::X509Pop(Box::new(X509Pop::load(files)?))),
            NodeAttestor::K8sPsat {
                cluster,
                token_path,
            } => Ok(Self::K8sPsat {
                cluster: cluster.clone(),
                token: ServiceAccountToken::read(token_path)?,
            }),
        }
    }

    /// The attestor's name on the wire.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::JoinToken(_) => JOIN_TOKEN,
            Self::X509Pop(_) => X509POP,
            Self::K8sPsat { .. } => K8S_PSAT,
        }
    }

    /// What goes first.
    ///
    /// # Errors
    /// None for these attestors.
    pub fn payload(&self) -> Result<Vec<u8>, ProofError> {
        Ok(match self {
            Self::JoinToken(token) => token.secret().as_bytes().to_vec(),
            Self::X509Pop(pop) => pop.payload(),
            Self::K8sPsat { cluster, token } => {
                json!({ "cluster": cluster, "token": token.0.as_str() })
                    .to_string()
                    .into_bytes()
            }
        })
    }

    /// The answer to a challenge.
    ///
    /// # Errors
    /// When the challenge is not this attestor's.
    pub fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, ProofError> {
        match self {
            Self::X509Pop(pop) => pop.respond(challenge),
            Self::JoinToken(_) | Self::K8sPsat { .. } => Err(ProofError::Challenge(
                self.kind(),
                "it has no challenges".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(content: &str) -> Result<Proof, ProofError> {
        let folder = tempfile::tempdir().unwrap();
        let token_path = folder.path().join("token");
        std::fs::write(&token_path, content).unwrap();
        Proof::load(&NodeAttestor::K8sPsat {
            cluster: "prod".to_owned(),
            token_path,
        })
    }

    #[test]
    fn k8s_psat_sends_cluster_and_token() {
        let proof = load("ey.token\n").unwrap();
        assert_eq!(proof.kind(), "k8s_psat");
        let payload: serde_json::Value = serde_json::from_slice(&proof.payload().unwrap()).unwrap();
        assert_eq!(payload, json!({"cluster": "prod", "token": "ey.token"}));
        assert!(!format!("{proof:?}").contains("ey.token"));
        assert!(proof.respond(b"{}").is_err());
        let error = load(" \n").unwrap_err().to_string();
        assert!(error.contains("projected service account token"), "{error}");
    }
}
