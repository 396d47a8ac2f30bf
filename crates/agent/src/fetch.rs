//! Fetches one document over HTTPS, proven by the system's authorities: for `trust_bundle_url`.

use std::sync::Arc;

use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The largest document read.
const MAX_LEN: usize = 1 << 20;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Not a URL to fetch from.
    #[error("an https:// URL with a host is expected")]
    Url,
    /// No TCP connection.
    #[error("connecting: {0}")]
    Connect(std::io::Error),
    /// No TLS.
    #[error("the TLS handshake failed: {0}")]
    Tls(std::io::Error),
    /// No system authorities.
    #[error("the system has no certificate authorities; install its ca-certificates package")]
    NoAuthorities,
    /// TLS cannot be set up.
    #[error("setting up TLS: {0}")]
    Setup(#[from] rustls::Error),
    /// No HTTP answer.
    #[error("asking: {0}")]
    Http(#[from] hyper::Error),
    /// Another answer than 200; redirects are not followed.
    #[error("the answer is {0}, where 200 OK is expected (redirects are not followed)")]
    Answer(http::StatusCode),
    /// The body could not be read.
    #[error("reading the answer: {0}")]
    Body(String),
}

/// Fetches `url`. Bound by the caller's time-out and by 1 MiB.
pub(crate) async fn get(url: &str) -> Result<Vec<u8>, FetchError> {
    let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or(FetchError::Url)?.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Url)?;
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(443)))
        .await
        .map_err(FetchError::Connect)?;
    let tls = TlsConnector::from(Arc::new(tls_config()?))
        .connect(name, tcp)
        .await
        .map_err(FetchError::Tls)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(
            header::HOST,
            uri.authority().map_or(host, |all| all.as_str()),
        )
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|_| FetchError::Url)?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != http::StatusCode::OK {
            return Err(FetchError::Answer(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_LEN).collect().await;
        body.map(|body| body.to_bytes().to_vec()).map_err(|error| {
            match error.downcast_ref::<LengthLimitError>() {
                Some(_) => FetchError::Body(format!("it is longer than {MAX_LEN} bytes")),
                None => FetchError::Body(error.to_string()),
            }
        })
    };
    beside(connection, exchange).await
}

/// Runs `exchange`, which needs its `connection` to run beside it, and ends first.
pub(crate) async fn beside<T, E: From<hyper::Error>>(
    connection: impl Future<Output = hyper::Result<()>>,
    exchange: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::pin!(exchange, connection);
    let mut connected = true;
    loop {
        tokio::select! {
            done = &mut exchange => return done,
            ended = &mut connection, if connected => {
                ended?;
                connected = false;
            }
        }
    }
}

fn tls_config() -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(FetchError::NoAuthorities);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_https_urls_with_a_host_are_fetched() {
        for url in [
            "http://example.org/b",
            "https:///b",
            "file:///etc/passwd",
            "b",
            "",
        ] {
            assert!(matches!(get(url).await, Err(FetchError::Url)), "{url:?}");
        }
    }
}
