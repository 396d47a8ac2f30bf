//! E2: rotation under load. A test binary of its own, so that nothing else runs beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::load::Load;
use e2e::mesh::Programs;
use e2e::{Bootstrap, Domain, Mesh, Settings, tls, wait};
use tokio::time::timeout;

/// Long enough for what is waited for, even where a second takes two.
const BOUND: Duration = Duration::from_secs(300);

const SVID_ROTATIONS: usize = 20;
const CA_ROTATIONS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn e2_no_request_fails_over_20_svid_and_2_ca_rotations() -> Result<()> {
    let settings = Settings {
        x509_svid_ttl: Duration::from_secs(10),
        // The shortest for such SVIDs: the next authority signs when a sixth is left.
        ca_ttl: Duration::from_secs(60),
        ..Settings::default()
    };
    let mut domain = Domain::start(settings).await?;
    let programs = Programs::register(&domain).await?;
    let (inbound, outbound) = (
        Bootstrap::read("inbound.yaml")?,
        Bootstrap::read("outbound.yaml")?,
    );
    let mesh = Mesh::start(&domain, &programs, "rotation", inbound, outbound).await?;
    let load = Load::start(mesh.outbound, mesh.expected(), 4);

    let (mut leaves, mut authorities) = (BTreeSet::new(), BTreeSet::new());
    let seen = timeout(BOUND, async {
        while leaves.len() <= SVID_ROTATIONS || authorities.len() <= CA_ROTATIONS {
            let leaf = wait::until("another certificate", || async {
                let leaf = tls::chain(mesh.inbound).await?.remove(0);
                Ok((!leaves.contains(&leaf.serial_decimal())).then_some(leaf))
            })
            .await?;
            let authority = leaf.authority_key_id().context("an authority")?;
            authorities.insert(authority.to_vec());
            leaves.insert(leaf.serial_decimal());
        }
        anyhow::Ok(())
    })
    .await;
    let report = load.stop().await;
    let rotations = format!("{} SVIDs, {} authorities", leaves.len(), authorities.len());
    seen.context(rotations.clone())??;
    let log = domain.agent()?.log_path().display().to_string();
    ensure!(
        report.failed == 0,
        "{rotations}: {report:?}; agent's log {log}"
    );
    ensure!(report.sent > 1000, "hardly any load: {report:?}");
    Ok(())
}
