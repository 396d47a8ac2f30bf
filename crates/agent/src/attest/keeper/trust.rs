//! By which bundle the keeper knows the server.

use std::sync::Arc;

use identity::{Bundle, X509Authority};

use super::{Failure, Keeper, Setup};
use crate::{
    attest::bootstrap::{self, BootstrapError},
    config::Bootstrap,
};

impl Keeper {
    /// Sees to it that there is a bundle to know the server by.
    pub(super) async fn ensure_trust(&self) -> Result<(), Failure> {
        let domain = &self.setup.trust_domain;
        if self.setup.bundles.borrow().get(domain).is_some() {
            return Ok(());
        }
        let bundle = self.first_bundle().await?;
        tracing::info!(
            trust_domain = %domain,
            authorities = bundle.x509_authorities.len(),
            "trusting the server by its bundle"
        );
        self.save(|store| store.save_bundle(&bundle));
        let bundles = std::iter::once(Arc::new(bundle)).collect();
        self.setup.bundles.send_replace(Arc::new(bundles));
        Ok(())
    }

    /// After a failure: a bundle that the operator gives may be newer than the one that was kept, as
    /// after a long time without the server.
    pub(super) async fn mistrust(&self) {
        if self.setup.bootstrap == Bootstrap::Insecure {
            return;
        }
        let Ok(given) = self.first_bundle().await else {
            return;
        };
        let domain = &self.setup.trust_domain;
        self.setup.bundles.send_if_modified(|bundles| {
            let mut kept = bundles
                .get(domain)
                .map_or_else(|| Bundle::empty(domain.clone()), |kept| (**kept).clone());
            let known = kept.x509_authorities.len();
            for authority in given.x509_authorities {
                let same = |one: &X509Authority| one.certificate == authority.certificate;
                if !kept.x509_authorities.iter().any(same) {
                    kept.x509_authorities.push(authority);
                }
            }
            let grown = kept.x509_authorities.len() > known;
            if grown {
                tracing::info!(trust_domain = %domain, "taking new authorities from the configured trust bundle");
                Arc::make_mut(bundles).insert(kept.into());
            }
            grown
        });
    }

    async fn first_bundle(&self) -> Result<Bundle, BootstrapError> {
        let Setup {
            bootstrap,
            server,
            trust_domain,
            clock,
            ..
        } = &self.setup;
        bootstrap::first_bundle(bootstrap, server, trust_domain, clock).await
    }
}
