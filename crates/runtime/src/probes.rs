//! The two HTTP listeners that operators ask: figures, and health.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::HealthListener;
use crate::listen::{ListenError, bind_tcp};
use crate::{Metrics, Readiness, Tasks};

/// Those of the two that are wanted, bound.
#[derive(Debug)]
pub struct Probes {
    figures: Option<TcpListener>,
    health: Option<(TcpListener, HealthListener)>,
}

impl Probes {
    /// Binds them.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub async fn bind(
        figures: Option<SocketAddr>,
        health: Option<&HealthListener>,
    ) -> Result<Self, ListenError> {
        let figures = match figures {
            Some(address) => Some(bind(address, "Prometheus").await?),
            None => None,
        };
        let health = match health {
            Some(health) => Some((bind(health.address, "health checks").await?, health.clone())),
            None => None,
        };
        Ok(Self { figures, health })
    }

    /// Where figures are fetched.
    #[must_use]
    pub fn figures(&self) -> Option<SocketAddr> {
        self.figures.as_ref()?.local_addr().ok()
    }

    /// Where health is asked.
    #[must_use]
    pub fn health(&self) -> Option<SocketAddr> {
        self.health.as_ref()?.0.local_addr().ok()
    }

    /// Serves them until shutdown.
    pub fn serve(self, metrics: &Metrics, readiness: &Readiness, tasks: &Tasks) {
        if let Some(listener) = self.figures {
            metrics.serve(listener, tasks);
        }
        if let Some((listener, health)) = self.health {
            readiness.serve(listener, &health.live_path, &health.ready_path, tasks);
        }
    }
}

async fn bind(address: SocketAddr, purpose: &str) -> Result<TcpListener, ListenError> {
    bind_tcp(address).await.map_err(|error| ListenError {
        address: format!("{} for {purpose}", error.address),
        ..error
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_what_it_was_for() {
        let any = ([127, 0, 0, 1], 0).into();
        let first = Probes::bind(Some(any), None).await.unwrap();
        let taken = first.figures().unwrap();
        let health = HealthListener {
            address: taken,
            live_path: "/live".to_owned(),
            ready_path: "/ready".to_owned(),
        };
        let error = Probes::bind(None, Some(&health)).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("{taken} for health checks")),
            "{text}"
        );
        assert!(text.contains("in use"), "{text}");
        assert_eq!(first.health(), None);
    }
}
