//! An ordinary program that uses rust-spiffe as its documentation shows it. Its sisters are e2e/go/main.go and
//! e2e/python/stock.py; all three take the same words:
//!
//! ```text
//! stock x509                    fetches the X.509 context; prints it as JSON
//! stock watch N                 prints the serial number of N X.509-SVIDs, as they come
//! stock jwt AUDIENCE            prints a JWT-SVID
//! stock validate AUDIENCE TOKEN asks the agent whose the token is
//! stock serve                   prints a port and answers mTLS there, to its own trust domain
//! stock get PORT ID             asks a server that must be ID
//! ```
//!
//! The socket comes from SPIFFE_ENDPOINT_SOCKET.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of its own, which speaks through its output"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::env;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use identity::Certificate;
use rustls::pki_types::{CertificateDer, ServerName};
use spiffe::{WorkloadApiClient, X509Source};
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["x509"] => x509().await,
        ["watch", count] => watch(count.parse()?).await,
        ["jwt", audience] => jwt(audience).await,
        ["validate", audience, token] => validate(audience, token).await,
        ["serve"] => serve().await,
        ["get", port, id] => get(port.parse()?, id).await,
        _ => bail!("say x509, watch, jwt, validate, serve or get"),
    }
}

async fn x509() -> Result<()> {
    let client = WorkloadApiClient::connect_env().await?;
    let context = client.fetch_x509_context().await?;
    let svid = context.default_svid().context("a default X.509-SVID")?;
    let leaf = Certificate::from_der(svid.leaf().as_bytes())?;
    let not_after = leaf.not_after().duration_since(std::time::UNIX_EPOCH)?;
    let bundles = client.fetch_x509_bundles().await?;
    let authorities: BTreeMap<_, _> = bundles
        .iter()
        .map(|(trust_domain, bundle)| (trust_domain.to_string(), bundle.authorities().len()))
        .collect();
    let seen = serde_json::json!({
        "id": svid.spiffe_id().to_string(),
        "not_after": not_after.as_secs(),
        "authorities": authorities,
    });
    println!("{seen}");
    Ok(())
}

async fn watch(mut left: u32) -> Result<()> {
    let source = X509Source::new().await?;
    let mut updates = source.updated();
    let mut last = String::new();
    while left > 0 {
        let serial = Certificate::from_der(source.svid()?.leaf().as_bytes())?.serial_decimal();
        if serial == last {
            updates.changed().await?;
        } else {
            println!("{serial}");
            last = serial;
            left -= 1;
        }
    }
    Ok(())
}

async fn jwt(audience: &str) -> Result<()> {
    let client = WorkloadApiClient::connect_env().await?;
    println!("{}", client.fetch_jwt_svid([audience], None).await?.token());
    Ok(())
}

async fn validate(audience: &str, token: &str) -> Result<()> {
    let client = WorkloadApiClient::connect_env().await?;
    let svid = client.validate_jwt_token(audience, token).await?;
    println!("{}", svid.spiffe_id());
    Ok(())
}

async fn serve() -> Result<()> {
    let source = X509Source::new().await?;
    let trust_domain = source.svid()?.spiffe_id().trust_domain().to_string();
    let config = mtls_server(source)
        .authorize(authorizer::trust_domains([trust_domain])?)
        .build()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await?;
            let (_, connection) = stream.get_ref();
            let peer = peer(connection.peer_certificates())?;
            let hello = service_fn(async |_: Request<_>| {
                let body = Full::new(Bytes::from(format!("hello {peer}")));
                Ok::<_, Infallible>(Response::new(body))
            });
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), hello)
                .await?;
            Ok::<_, anyhow::Error>(())
        });
    }
}

async fn get(port: u16, id: &str) -> Result<()> {
    let source = X509Source::new().await?;
    let config = mtls_client(source)
        .authorize(authorizer::exact([id])?)
        .build()?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let stream = connector
        .connect(ServerName::try_from("localhost")?, stream)
        .await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "localhost")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&body));
    Ok(())
}

fn peer(chain: Option<&[CertificateDer<'_>]>) -> Result<String> {
    let leaf = chain
        .and_then(<[_]>::first)
        .context("a client certificate")?;
    let leaf = Certificate::from_der(leaf)?;
    Ok(leaf.spiffe_id().context("a SPIFFE ID")?.to_string())
}
