//! Row a1: X.509-SVIDs from the server, with each request's signature checked, to agents over mTLS. Row i: JWT-SVIDs, one
//! a call. Each beside the bare cryptography it cannot do without, on as many cores as the server used.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use identity::{KeyType, PrivateKey, X509Svid};
use proto::spire::api::server::bundle::v1::GetBundleRequest;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::entry::v1::BatchCreateEntryRequest;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::svid::v1::svid_client::SvidClient;
use proto::spire::api::server::svid::v1::{
    BatchNewX509svidRequest, NewJwtsvidRequest, NewX509svidParams,
};
use proto::spire::api::types;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::SignatureVerificationAlgorithm;
use rustls::pki_types::alg_id::{ECDSA_P256, ECDSA_SHA256};
use testkit::{Tls, attest_with, local_channel, remote_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Figure, Report, bare, usage};
use crate::{Domain, Settings};

/// What the server takes in one call.
const BATCH: u32 = 500;
/// As many callers as SPIRE was measured with.
const X509_CALLERS: u32 = 2;
/// Calls of each.
const X509_CALLS: u32 = 30;
/// As many callers as SPIRE was measured with, and as many as keep the server busy.
const JWT_CALLERS: [u32; 2] = [4, 64];
/// Calls of all of them.
const JWT_CALLS: u32 = 16_384;

/// The best of these windows counts: the machine has other work.
const WINDOWS: u32 = 20;
const WINDOW: Duration = Duration::from_millis(50);

/// Measures row a1.
///
/// # Errors
/// When something does not run.
pub async fn x509(report: &mut Report) -> Result<()> {
    let mut bench = Bench::start().await?;
    let limit = 1.0 / (seconds_to_verify()? + seconds_to_sign()?);
    let request = BatchNewX509svidRequest {
        params: params(BATCH)?,
    };
    let measured = bench
        .measure(X509_CALLERS, |tls, address| {
            fetch_x509(tls, address, request.clone())
        })
        .await?;
    let svids = X509_CALLERS * X509_CALLS * BATCH;
    let case = format!("BatchNewX509SVID, {BATCH} per call, {X509_CALLERS} callers, mTLS");
    measured.report(report, "a1", &case, "SVID/s", svids, limit)
}

/// Measures row i.
///
/// # Errors
/// When something does not run.
pub async fn jwt(report: &mut Report) -> Result<()> {
    let mut bench = Bench::start().await?;
    for callers in JWT_CALLERS {
        let limit = 1.0 / seconds_to_sign()?;
        let calls = JWT_CALLS / callers;
        let measured = bench
            .measure(callers, |tls, address| fetch_jwt(tls, address, calls))
            .await?;
        let case = format!("NewJWTSVID, one a call, {callers} callers, mTLS");
        measured.report(report, "i", &case, "SVID/s", callers * calls, limit)?;
    }
    Ok(())
}

async fn fetch_x509(tls: Tls, address: SocketAddr, request: BatchNewX509svidRequest) -> Result<()> {
    let mut client = SvidClient::new(remote_channel(address, &tls));
    for _ in 0..X509_CALLS {
        let answer = client
            .batch_new_x509svid(request.clone())
            .await?
            .into_inner();
        let issued = answer.results.iter().filter(|one| one.svid.is_some());
        ensure!(
            issued.count() == request.params.len(),
            "an SVID was refused: {:?}",
            answer.results.first()
        );
    }
    Ok(())
}

async fn fetch_jwt(tls: Tls, address: SocketAddr, calls: u32) -> Result<()> {
    let mut client = SvidClient::new(remote_channel(address, &tls));
    for _ in 0..calls {
        let request = NewJwtsvidRequest {
            entry_id: entry_id(0),
            audience: vec!["db".to_owned()],
        };
        let answer = client.new_jwtsvid(request).await?.into_inner();
        ensure!(answer.svid.is_some(), "a JWT-SVID was refused");
    }
    Ok(())
}

/// A server with an agent and entries.
struct Bench {
    domain: Domain,
    tls: Tls,
}

impl Bench {
    async fn start() -> Result<Self> {
        let mut domain = Domain::new(Settings {
            // Else 500 SVIDs a second would be what is measured.
            server_extra: "ratelimit {\n    attestation = false\n    signing = false\n  }"
                .to_owned(),
            ..Settings::default()
        })?;
        domain.start_server().await?;
        let local = local_channel(&domain.server_socket());
        let answer = BundleClient::new(local.clone())
            .get_bundle(GetBundleRequest::default())
            .await?;
        let bundle = proto::convert::bundle(&answer.into_inner())?;
        let mut tls = Tls::new(Arc::new(bundle), None);
        let token = domain.server_cli(&["token", "generate"]).await?;
        // A warning follows: this token gives no further SPIFFE ID.
        let token = bare::token(&token)?;
        let agent = attest_with(remote_channel(address(&domain), &tls), &token).await?;
        let request = BatchCreateEntryRequest {
            entries: entries(&agent),
            output_mask: None,
        };
        EntryClient::new(local).batch_create_entry(request).await?;
        tls.svid = Some(agent);
        Ok(Self { domain, tls })
    }

    /// Runs so many callers to their end, after one of them has warmed up the server.
    async fn measure<F, W>(&mut self, callers: u32, work: F) -> Result<Measured>
    where
        F: Fn(Tls, SocketAddr) -> W,
        W: Future<Output = Result<()>> + Send + 'static,
    {
        let address = address(&self.domain);
        let server = self.domain.server()?.pid()?;
        work(self.tls.clone(), address).await?;
        let (started, busy) = (Instant::now(), usage::on_core(server)?);
        let mut running = JoinSet::new();
        for _ in 0..callers {
            running.spawn(work(self.tls.clone(), address));
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(Measured {
            seconds: started.elapsed().as_secs_f64(),
            busy: usage::on_core(server)? - busy,
        })
    }
}

/// How long it took, and how long the server was on a core meanwhile, in seconds.
struct Measured {
    seconds: f64,
    busy: f64,
}

impl Measured {
    /// `per_core` is what the cryptography alone reaches on one core.
    fn report(
        &self,
        report: &mut Report,
        row: &'static str,
        case: &str,
        unit: &'static str,
        number: u32,
        per_core: f64,
    ) -> Result<()> {
        let cores = self.busy / self.seconds;
        ensure!(cores > 0.0, "the server did nothing");
        let n = usize::try_from(number)?;
        report.add(Figure {
            row,
            case: case.to_owned(),
            value: f64::from(number) / self.seconds,
            unit,
            limit: Some(per_core * cores),
            n,
        });
        report.add(Figure {
            row,
            case: format!("{case}: cores the server used"),
            value: cores,
            unit: "cores",
            limit: None,
            n,
        });
        Ok(())
    }
}

fn address(domain: &Domain) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, domain.server_port()))
}

fn entry_id(number: u32) -> String {
    format!("issue-{number}")
}

/// Entries under the agent.
fn entries(agent: &X509Svid) -> Vec<types::Entry> {
    let entry = |number| types::Entry {
        id: entry_id(number),
        spiffe_id: Some(types::Spiffeid {
            trust_domain: agent.id().trust_domain().as_str().to_owned(),
            path: format!("/issue/{number}"),
        }),
        parent_id: Some(types::Spiffeid::from(agent.id())),
        selectors: vec![types::Selector {
            r#type: "unix".to_owned(),
            value: "uid:1000".to_owned(),
        }],
        ..types::Entry::default()
    };
    (0..BATCH).map(entry).collect()
}

/// A request for each entry, each with a key of its own.
fn params(number: u32) -> Result<Vec<NewX509svidParams>> {
    let param = |number| -> Result<NewX509svidParams> {
        let key = PrivateKey::generate(KeyType::EcP256)?;
        Ok(NewX509svidParams {
            entry_id: entry_id(number),
            csr: Bytes::from(key.csr(None, &[])?),
        })
    };
    (0..number).map(param).collect()
}

/// As long as what is signed of a leaf.
const MESSAGE: [u8; 420] = [7; 420];

fn seconds_to_sign() -> Result<f64> {
    let key = PrivateKey::generate(KeyType::EcP256)?;
    seconds(|_| {
        black_box(key.sign(&MESSAGE)?);
        Ok(())
    })
}

/// Of signatures by as many keys as are in a batch: one and the same again and again is verified an eighth faster, since
/// the processor learns its way.
fn seconds_to_verify() -> Result<f64> {
    let signed: Vec<(PrivateKey, Vec<u8>)> = (0..BATCH)
        .map(|_| {
            let key = PrivateKey::generate(KeyType::EcP256)?;
            let signature = key.sign(&MESSAGE)?;
            Ok((key, signature))
        })
        .collect::<Result<_>>()?;
    let provider = aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let algorithm: &dyn SignatureVerificationAlgorithm = *algorithms
        .iter()
        .find(|one| one.public_key_alg_id() == ECDSA_P256 && one.signature_alg_id() == ECDSA_SHA256)
        .context("ECDSA on P-256")?;
    seconds(|number| {
        let (key, signature) = &signed[number % signed.len()];
        // The point behind the fixed header of a P-256 key's SubjectPublicKeyInfo.
        let point = key.public_key_spki().get(26..).context("a P-256 key")?;
        let verified = algorithm.verify_signature(point, &MESSAGE, signature);
        verified.map_err(|_| anyhow!("a signature of our own is refused"))
    })
}

/// How long one call takes on a core, while each other core does the same: two that share a physical core, as the
/// server's threads may, are slower than one alone.
pub(super) fn seconds(call: impl Fn(usize) -> Result<()> + Sync) -> Result<f64> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..cores).map(|_| scope.spawn(|| best(&call))).collect();
        let mut sum = 0.0;
        for thread in running {
            sum += thread
                .join()
                .map_err(|_| anyhow!("a measuring thread panicked"))??;
        }
        #[expect(clippy::cast_precision_loss, reason = "few cores")]
        Ok(sum / cores as f64)
    })
}

/// Seconds a call, in the best window. Calls are numbered.
fn best(call: impl Fn(usize) -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    let mut numbers = 0..;
    for _ in 0..WINDOWS {
        let started = Instant::now();
        let mut calls = 0_u32;
        while started.elapsed() < WINDOW {
            for number in numbers.by_ref().take(50) {
                call(number)?;
            }
            calls += 50;
        }
        best = best.min(started.elapsed().as_secs_f64() / f64::from(calls));
    }
    Ok(best)
}
