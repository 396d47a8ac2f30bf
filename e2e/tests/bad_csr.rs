//! E7: certificate requests that ask for more than the entry has, over the wire, with an agent's identity. What comes of them
//! carries the entry's data alone; what is no request of the key's owner is refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::{Domain, Settings};
use identity::{Bundle, Certificate};
use proto::spire::api::server::bundle::v1::GetBundleRequest;
use proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use proto::spire::api::server::svid::v1::svid_client::SvidClient;
use proto::spire::api::server::svid::v1::{BatchNewX509svidRequest, NewX509svidParams};
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, KeyUsagePurpose, SanType};
use tonic::Code;
use tonic::transport::Channel;

/// BasicConstraints (RFC 5280, section 4.2.1.9) with `cA` set.
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const CA: &[u8] = &[0x30, 0x03, 0x01, 0x01, 0xff];

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_greedy_certificate_request_gets_the_entrys_data_alone() -> Result<()> {
    let mut domain = Domain::new(Settings::default())?;
    domain.start_server().await?;
    let entry = domain.register("/web", Path::new("/bin/web")).await?;
    let agent = agent(&domain).await?;
    let (server, other) = (domain.id("/spire/server"), domain.id("/other"));
    for (what, csr) in [
        ("another's ID", request(|params| uris(params, &[&other]))?),
        (
            "the server's ID",
            request(|params| uris(params, &[&server]))?,
        ),
        ("names and addresses", request(names)?),
        ("a certificate authority", request(authority)?),
    ] {
        let (leaf, said) = ask(&agent, &entry, csr).await?;
        let leaf = leaf.with_context(|| format!("{what}: {said}"))?;
        let id = leaf.spiffe_id().map(ToString::to_string);
        ensure!(id == Some(domain.id("/web")), "{what}: {id:?}");
        ensure!(
            leaf.dns_names().is_empty(),
            "{what}: {:?}",
            leaf.dns_names()
        );
        ensure!(!leaf.is_ca(), "{what}: a certificate authority");
        ensure!(
            !leaf.subject().contains("greedy"),
            "{what}: {}",
            leaf.subject()
        );
        let der = leaf.der();
        for part in [&b"evil.test"[..], &[10, 9, 8, 7], b"root@evil.test"] {
            let found = der.windows(part.len()).any(|window| window == part);
            ensure!(!found, "{what}: {part:?} is in the certificate");
        }
    }
    let mut forged = request(|_| Ok(()))?;
    *forged.last_mut().context("a request")? ^= 1;
    for (what, csr) in [
        ("another's signature", forged),
        ("half a request", request(names)?[..50].to_vec()),
        ("no request", b"please".to_vec()),
        ("nothing", Vec::new()),
    ] {
        let (leaf, said) = ask(&agent, &entry, csr).await?;
        ensure!(leaf.is_none(), "{what}: a certificate");
        ensure!(
            said.starts_with("InvalidArgument: ") && said.contains("CSR"),
            "{what}: {said}"
        );
    }
    domain.healthy("server").await?;
    ensure!(
        !domain.server()?.log()?.contains("panicked"),
        "a panic in the server's log"
    );
    Ok(())
}

/// A channel with the identity of a new agent.
async fn agent(domain: &Domain) -> Result<Channel> {
    let socket = testkit::local_channel(&domain.server_socket());
    let answer = BundleClient::new(socket)
        .get_bundle(GetBundleRequest::default())
        .await?;
    let bundle: Arc<Bundle> = proto::convert::bundle(&answer.into_inner())?.into();
    let token = domain
        .server_cli(&["token", "generate", "-spiffeID", &domain.agent_id()])
        .await?;
    let token = token.trim().strip_prefix("Token: ").context("a token")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, domain.server_port()));
    let nameless = testkit::remote_channel(address, &testkit::Tls::new(bundle.clone(), None));
    let svid = testkit::attest_with(nameless, token).await?;
    let named = testkit::Tls::new(bundle, Some(svid));
    Ok(testkit::remote_channel(address, &named))
}

/// The leaf that comes of a request; else the status.
async fn ask(agent: &Channel, entry: &str, csr: Vec<u8>) -> Result<(Option<Certificate>, String)> {
    let params = vec![NewX509svidParams {
        entry_id: entry.to_owned(),
        csr: csr.into(),
    }];
    let mut client = SvidClient::new(agent.clone());
    let answer = client
        .batch_new_x509svid(BatchNewX509svidRequest { params })
        .await?;
    let result = answer.into_inner().results.pop().context("a result")?;
    let status = result.status.unwrap_or_default();
    let said = format!("{:?}: {}", Code::from_i32(status.code), status.message);
    let leaf = result
        .svid
        .and_then(|svid| svid.cert_chain.into_iter().next());
    let leaf = leaf.map(|der| Certificate::from_der(&der)).transpose()?;
    Ok((leaf, said))
}

fn request(greedy: impl FnOnce(&mut CertificateParams) -> Result<()>) -> Result<Vec<u8>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "greedy");
    greedy(&mut params)?;
    let csr = params.serialize_request(&KeyPair::generate()?)?;
    Ok(csr.der().to_vec())
}

fn uris(params: &mut CertificateParams, ids: &[&str]) -> Result<()> {
    for id in ids {
        params
            .subject_alt_names
            .push(SanType::URI((*id).try_into()?));
    }
    Ok(())
}

fn names(params: &mut CertificateParams) -> Result<()> {
    params.subject_alt_names = vec![
        SanType::DnsName("evil.test".try_into()?),
        SanType::IpAddress([10, 9, 8, 7].into()),
        SanType::Rfc822Name("root@evil.test".try_into()?),
    ];
    Ok(())
}

fn authority(params: &mut CertificateParams) -> Result<()> {
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let constraints = CustomExtension::from_oid_content(BASIC_CONSTRAINTS, CA.to_vec());
    params.custom_extensions.push(constraints);
    Ok(())
}
