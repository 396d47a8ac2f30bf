//! The Workload API's X.509 answers, read, checked and told.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use identity::{
    Bundle, BundleSet, Certificate, PrivateKey, TrustDomain, X509Authority, X509Svid,
    verify_x509_svid,
};
use proto::workload::{X509svid, X509svidResponse};

use crate::output::{counted, moment_of};

/// All that an agent gave.
pub(super) struct Received {
    pub(super) svids: Vec<Identity>,
    pub(super) federated: Vec<Bundle>,
}

/// One identity of a workload.
pub(super) struct Identity {
    pub(super) svid: X509Svid,
    pub(super) bundle: Bundle,
    hint: String,
}

/// Reads an answer.
pub(super) fn read(answer: &X509svidResponse) -> Result<Received> {
    if answer.svids.is_empty() {
        bail!("workload response contains no svids");
    }
    let federated = answer.federated_bundles.iter().map(|(name, der)| {
        let wrong = || format!("failed to parse bundle for federated domain {name:?}");
        let trust_domain = TrustDomain::parse(name).with_context(wrong)?;
        bundle(trust_domain, der).with_context(wrong)
    });
    let svids = answer.svids.iter().enumerate().map(|(number, svid)| {
        let id = &svid.spiffe_id;
        identity(svid)
            .with_context(|| format!("failed to parse svid entry {number} for spiffe id {id:?}"))
    });
    Ok(Received {
        svids: svids.collect::<Result<_>>()?,
        federated: federated.collect::<Result<_>>()?,
    })
}

fn identity(received: &X509svid) -> Result<Identity> {
    let chain = Certificate::chain_from_der(&received.x509_svid)?;
    let key = PrivateKey::from_pkcs8_der(&received.x509_svid_key)?;
    let svid = X509Svid::new(chain, key)?;
    if svid.id().as_str() != received.spiffe_id {
        bail!("its certificate is for {}", svid.id());
    }
    let bundle = bundle(svid.id().trust_domain().clone(), &received.bundle)
        .context("failed to parse trust bundle")?;
    Ok(Identity {
        svid,
        bundle,
        hint: received.hint.clone(),
    })
}

fn bundle(trust_domain: TrustDomain, der: &[u8]) -> Result<Bundle> {
    let certificates = Certificate::chain_from_der(der)?;
    if certificates.is_empty() {
        bail!("no certificates in trust bundle");
    }
    let mut bundle = Bundle::empty(trust_domain);
    bundle.x509_authorities = certificates.into_iter().map(X509Authority::new).collect();
    Ok(bundle)
}

impl Received {
    /// Checks each SVID against its bundle, as a peer would.
    pub(super) fn verify(&self, now: SystemTime) -> Result<()> {
        for Identity { svid, bundle, .. } in &self.svids {
            let bundles = BundleSet::from_iter([Arc::new(bundle.clone())]);
            verify_x509_svid(svid.chain(), &bundles, now).with_context(|| {
                format!(
                    "{:?} SVID failed verification against bundle",
                    svid.id().as_str()
                )
            })?;
        }
        Ok(())
    }

    /// Checks each SVID against the authorities of a PEM file.
    pub(super) fn verify_by(&self, file: &Path, now: SystemTime) -> Result<()> {
        let name = file.display();
        let pem = std::fs::read_to_string(file).with_context(|| format!("read {name}"))?;
        for Identity { svid, .. } in &self.svids {
            let bundle = Bundle::from_pem(svid.id().trust_domain(), &pem)
                .with_context(|| format!("parse {name}"))?;
            let bundles = BundleSet::from_iter([Arc::new(bundle)]);
            verify_x509_svid(svid.chain(), &bundles, now).with_context(|| {
                format!("{} is not signed by an authority of {name}", svid.id())
            })?;
        }
        Ok(())
    }

    /// The answer for people, which came after `took`.
    pub(super) fn told(&self, took: Duration) -> String {
        let count = i64::try_from(self.svids.len()).unwrap_or(i64::MAX);
        let mut text = format!(
            "Received {} after {took:?}\n",
            counted(count, "svid", "svids")
        );
        for one in &self.svids {
            text.push('\n');
            one.tell(&mut text);
            for bundle in &self.federated {
                let roots = bundle.x509_authorities.iter();
                for (number, root) in (1..).zip(roots) {
                    let name = format!("[{}] CA #{number}", bundle.trust_domain.id());
                    validity(&mut text, &name, &root.certificate);
                }
            }
        }
        text.push('\n');
        text
    }
}

impl Identity {
    fn tell(&self, text: &mut String) {
        let _ = writeln!(text, "SPIFFE ID:\t\t{}", self.svid.id());
        if !self.hint.is_empty() {
            let _ = writeln!(text, "Hint:\t\t\t{}", self.hint);
        }
        validity(text, "SVID", self.svid.leaf());
        for (number, certificate) in self.svid.chain().iter().enumerate().skip(1) {
            validity(text, &format!("Intermediate #{number}"), certificate);
        }
        let roots = self.bundle.x509_authorities.iter();
        for (number, root) in (1..).zip(roots) {
            validity(text, &format!("CA #{number}"), &root.certificate);
        }
    }
}

fn validity(text: &mut String, name: &str, certificate: &Certificate) {
    let (after, until) = (certificate.not_before(), certificate.not_after());
    let _ = writeln!(text, "{name} Valid After:\t{}", moment_of(after));
    let _ = writeln!(text, "{name} Valid Until:\t{}", moment_of(until));
}
