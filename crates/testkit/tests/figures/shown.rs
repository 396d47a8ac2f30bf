//! What a program shows to Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Families by their names without the prefix.
#[derive(Default)]
pub(crate) struct Shown(pub(crate) BTreeMap<String, Family>);

#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    /// The labels that occur together, without `host` and `quantile`.
    pub(crate) labels: BTreeSet<BTreeSet<String>>,
}

impl Shown {
    /// Adds what is shown at `address` now.
    pub(crate) async fn take(&mut self, address: SocketAddr, prefix: &str) {
        let mut family = &mut Family::default();
        for line in text(address).await.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let Some(name) = name.strip_prefix(prefix) else {
                    assert!(name.starts_with("process_"), "whose is {name}?");
                    break;
                };
                family = self.0.entry(name.to_owned()).or_default();
                kind.clone_into(&mut family.kind);
            } else if !line.starts_with('#') && !line.is_empty() {
                assert!(line.contains("host=\""), "no host: {line}");
                family.labels.insert(labels(line));
            }
        }
    }
}

/// No value here holds a quotation mark: they are sanitised.
fn labels(line: &str) -> BTreeSet<String> {
    let (_, labels) = line.split_once('{').unwrap();
    let parts = labels
        .split("=\"")
        .map(|part| part.rsplit(['"', ',']).next());
    let names: BTreeSet<String> = parts.flatten().map(str::to_owned).collect();
    let own = |name: &String| !name.contains('}') && name != "host" && name != "quantile";
    names.into_iter().filter(own).collect()
}

async fn text(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}
