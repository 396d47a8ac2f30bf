use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use runtime::Supervisor;
use runtime::grpc::{Limits, serve};
use runtime::listen::TlsListener;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{WhoAsks, ask, connect};

struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self {
            certificate: cert.der().clone(),
            key: PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    fn chain(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (vec![self.certificate.clone()], self.key.clone_key())
    }
}

fn server_config(server: &Identity, client: &Identity) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(client.roots()), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
    let (chain, key) = server.chain();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn dial(
    address: SocketAddr,
    server: &Identity,
    client: Option<&Identity>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(server.roots());
    let mut config = match client {
        Some(client) => {
            let (chain, key) = client.chain();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

#[tokio::test]
async fn requests_know_the_peers_certificates_and_configurations_rotate() {
    let (_supervisor, tasks) = Supervisor::new();
    let (old, new, client) = (Identity::new(), Identity::new(), Identity::new());
    let (configs, config) = watch::channel(server_config(&old, &client));
    let listener = TlsListener::bind("127.0.0.1:0".parse().unwrap(), config)
        .await
        .unwrap();
    let address = listener.address();
    serve(listener, WhoAsks, Limits::tcp(), &tasks);

    let mut known = connect(dial(address, &old, Some(&client)).await.unwrap(), &tasks).await;
    assert_eq!(ask(&mut known).await.unwrap(), "certificates 1");
    let mut unknown = connect(dial(address, &old, None).await.unwrap(), &tasks).await;
    assert_eq!(ask(&mut unknown).await.unwrap(), "certificates 0");

    configs.send_replace(server_config(&new, &client));
    assert!(dial(address, &old, Some(&client)).await.is_err());
    let mut renewed = connect(dial(address, &new, Some(&client)).await.unwrap(), &tasks).await;
    assert_eq!(ask(&mut renewed).await.unwrap(), "certificates 1");
    assert_eq!(ask(&mut known).await.unwrap(), "certificates 1");
}

#[tokio::test]
async fn e7_garbage_is_closed_and_a_port_in_use_says_so() {
    let (_supervisor, tasks) = Supervisor::new();
    let identity = Identity::new();
    let (_configs, config) = watch::channel(server_config(&identity, &identity));
    let listener = TlsListener::bind("127.0.0.1:0".parse().unwrap(), config.clone())
        .await
        .unwrap();
    let address = listener.address();
    let refused = TlsListener::bind(address, config)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("in use") && refused.contains(&address.to_string()),
        "{refused}"
    );

    serve(listener, WhoAsks, Limits::tcp(), &tasks);
    let mut stream = TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let ended =
        tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "closed");
    assert!(!tasks.shutdown().is_cancelled());
}
