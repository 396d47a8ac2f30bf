//! The workloads of the tests, for pods: the app that answers with its caller, a client that asks, a program that reads
//! its SVID from files, and one that tells its health by gRPC.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use identity::{Bundle, BundleSet, Certificate, PrivateKey, X509Svid, verify_x509_svid};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::{TcpListener, lookup_host};

/// `shim app PORT`
pub(crate) fn serve(port: &str) -> Result<()> {
    let port: u16 = port.parse().context("a port")?;
    runtime()?.block_on(async {
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        let listener = TcpListener::bind(address).await?;
        e2e::app::serve(listener).await;
        Ok(())
    })
}

/// `shim get HOST:PORT PATH`: prints the body of a good answer.
#[expect(clippy::print_stdout, reason = "what it is for")]
pub(crate) fn get(host: &str, path: &str) -> Result<()> {
    runtime()?.block_on(async {
        let address = lookup_host(host).await?.next().context("an address")?;
        let answer = e2e::load::get(address, path).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        println!("{}", answer.body.trim_end());
        Ok(())
    })
}

/// `shim health PORT`: the server as a whole is well, and no service of it is known.
pub(crate) fn health(port: &str) -> Result<()> {
    let port: u16 = port.parse().context("a port")?;
    runtime()?.block_on(async {
        let (_reporter, service) = tonic_health::server::health_reporter();
        let server = tonic::transport::Server::builder().add_service(service);
        Ok(server.serve(([0, 0, 0, 0], port).into()).await?)
    })
}

/// `shim svid FOLDER`: prints the SPIFFE ID, when key and certificate belong together and the bundle vouches for them.
#[expect(clippy::print_stdout, reason = "what it is for")]
pub(crate) fn svid(folder: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let key = PrivateKey::from_pem(&read("key.pem")?)?;
    let text = read("svid.pem")?;
    let chain = CertificateDer::pem_slice_iter(text.as_bytes());
    let chain: Result<Vec<Certificate>> =
        chain.map(|der| Ok(Certificate::from_der(&der?)?)).collect();
    let svid = X509Svid::new(chain?, key)?;
    let bundle = Bundle::from_pem(svid.id().trust_domain(), &read("bundle.pem")?)?;
    let bundles = BundleSet::from_iter([Arc::new(bundle)]);
    #[expect(clippy::disallowed_methods, reason = "an app has no other clock")]
    let id = verify_x509_svid(svid.chain(), &bundles, SystemTime::now())?;
    println!("{id}");
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}
