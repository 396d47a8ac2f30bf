//! E7: bad input to the built binary. Each is a clear error, nothing panics, and whoever comes next is served.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::{Domain, Settings, wait};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use proto::discovery::DiscoveryRequest;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

const SDS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets";
const X509: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const LIST: &str = "/spire.api.server.entry.v1.Entry/ListEntries";

/// Broken files, and what must be said about them.
const BROKEN: &[(&str, &str, &[&str])] = &[
    ("server", "", &["server: the block is missing"]),
    ("server", "server {", &["not valid HCL at line 1"]),
    ("server", "server {\n}", &["server.trust_domain: missing"]),
    (
        "server",
        "server {\n trust_domain = \"Example.Org\"\n}",
        &["server.trust_domain: "],
    ),
    (
        "server",
        "server {\n trust_domain = \"example.org\"\n data_dri = \"/x\"\n bind_port = 70000\n}",
        &[
            "server.data_dri: unknown key; did you mean `data_dir`?",
            "server.bind_port: 70000",
        ],
    ),
    (
        "server",
        "server {\n trust_domain = \"example.org\"\n ca_ttl = \"a day\"\n}",
        &["server.ca_ttl: \"a day\" will not do"],
    ),
    (
        "server",
        "server {\n trust_domain = \"example.org\"\n admin_ids = [\"admin\"]\n}",
        &["server.admin_ids: \"admin\": "],
    ),
    (
        "server",
        "server {\n trust_domain = \"example.org\"\n}\nplugins {\n DataStore \"sql\" {\n plugin_data {\n database_type = \"mysql\"\n connection_string = \"x\"\n}\n}\n}",
        &["plugins.DataStore.sql.plugin_data.database_type: not supported yet"],
    ),
    (
        "server",
        "server {\n trust_domain = \"example.org\"\n}\nplugins {\n UpstreamAuthority \"disk\" {\n plugin_data {}\n}\n}",
        &["plugins.UpstreamAuthority: not supported yet"],
    ),
    (
        "server",
        "{\"server\": {\"trust_domain\": \"example.org\", \"bind_port\": true}}",
        &["server.bind_port: true will not do"],
    ),
    ("agent", "", &["agent"]),
    ("agent", "agent {", &["not valid HCL at line 1"]),
    (
        "agent",
        "agent {\n trust_domain = \"example.org\"\n server_adress = \"x\"\n}",
        &["agent.server_adress: unknown key; did you mean `server_address`?"],
    ),
    ("agent", "{\"agent\": [", &["not valid JSON"]),
];

#[tokio::test]
async fn e7_broken_configurations_are_explained() -> Result<()> {
    let domain = Domain::new(Settings::default())?;
    for &(program, text, expected) in BROKEN {
        let path = domain.write("broken.conf", text)?;
        for command in ["validate", "run"] {
            let output = signet(&domain, &[program, command, "-config", utf8(&path)?]).await?;
            refused(&output, expected).with_context(|| format!("{program} {command}: {text}"))?;
        }
    }
    let missing = domain.path("none.conf");
    let output = signet(&domain, &["server", "run", "-config", utf8(&missing)?]).await?;
    refused(&output, &["none.conf"])
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_port_in_use_is_named() -> Result<()> {
    let mut domain = Domain::new(Settings::default())?;
    domain.start_server().await?;
    let config = std::fs::read_to_string(domain.path("server.conf"))?;
    let first = format!("{}/server", domain.folder().display());
    let second = format!("{}/second", domain.folder().display());
    let path = domain.write("second.conf", &config.replace(&first, &second))?;
    let output = signet(&domain, &["server", "run", "-config", utf8(&path)?]).await?;
    let address = format!("127.0.0.1:{}", domain.server_port());
    refused(&output, &[address.as_str(), "in use"])?;
    // The same folder is not shared either.
    let path = domain.write("same.conf", &config.replace("bind_port", "# bind_port"))?;
    let output = signet(&domain, &["server", "run", "-config", utf8(&path)?]).await?;
    refused(&output, &["in use"])?;
    domain.healthy("server").await
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_read_only_data_folder_is_named() -> Result<()> {
    let domain = Domain::new(Settings::default())?;
    let folder = domain.path("server");
    std::fs::create_dir(&folder)?;
    let script = r#"mount -t tmpfs -o ro tmpfs "$1" && exec "$2" server run -config "$3""#;
    let output = own_mounts(&domain, script, &folder).output().await?;
    refused(&output, &[utf8(&folder)?, "ead-only"])
}

/// No room: what is acknowledged stays, what is not is refused in clear words, and with room again all goes on.
#[tokio::test(flavor = "multi_thread")]
async fn e7_a_full_disk_loses_nothing() -> Result<()> {
    let mut disk = SmallDisk::start().await?;
    let mut acknowledged = 0;
    disk.create_entries(acknowledged).await?;
    acknowledged += BATCH;
    disk.tell("fill").await?;
    let mut refusal = None;
    for _ in 0..200 {
        match disk.create_entries(acknowledged).await {
            Ok(()) => acknowledged += BATCH,
            Err(error) => {
                refusal = Some(format!("{error:#}"));
                break;
            }
        }
    }
    let refusal = refusal.context("a full disk refuses entries at last")?;
    ensure!(
        refusal.contains("the datastore is not available"),
        "{refusal}"
    );
    ensure!(
        disk.count().await? == acknowledged,
        "nothing acknowledged is lost"
    );
    disk.tell("free").await?;
    disk.create_entries(acknowledged).await?;
    acknowledged += BATCH;
    ensure!(disk.count().await? == acknowledged, "it goes on with room");
    disk.tell("restart").await?;
    disk.healthy().await?;
    ensure!(
        disk.count().await? == acknowledged,
        "all is there after a restart"
    );
    disk.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_garbage_on_the_sockets_is_dropped() -> Result<()> {
    let mut domain = Domain::start(Settings::default()).await?;
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0; 8192],
        &[0xff; 8192],
        b"\x16\x03\x01\xff\xff\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for bytes in garbage {
        for socket in [domain.server_socket(), domain.agent_socket()] {
            drop_garbage(UnixStream::connect(socket).await?, bytes).await?;
        }
        let address = ("127.0.0.1", domain.server_port());
        drop_garbage(TcpStream::connect(address).await?, bytes).await?;
    }
    unharmed(&mut domain).await
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_broken_calls_get_a_status() -> Result<()> {
    let mut domain = Domain::start(Settings::default()).await?;
    // Who asks has an identity, so that nothing but the question is wrong.
    domain
        .register("/tester", &std::env::current_exe()?)
        .await?;
    let (server, agent) = (domain.server_socket(), domain.agent_socket());
    let names: Vec<String> = (0..10_000).map(|n| format!("name-{n}")).collect();
    let many = DiscoveryRequest {
        resource_names: names,
        ..DiscoveryRequest::default()
    };
    let wrong = DiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..DiscoveryRequest::default()
    };
    for (what, socket, path, body, codes) in [
        (
            "truncated, to the server",
            &server,
            LIST,
            frame(100, b"abc"),
            &["13", "3"][..],
        ),
        (
            "truncated, to SDS",
            &agent,
            SDS,
            frame(100, b"abc"),
            &["13", "3"],
        ),
        (
            "oversize, to the server",
            &server,
            LIST,
            frame(u32::MAX, b"abc"),
            &["11", "8"],
        ),
        (
            "oversize, to SDS",
            &agent,
            SDS,
            frame(u32::MAX, b"abc"),
            &["11", "8"],
        ),
        ("no security header", &agent, X509, message(&[]), &["3"]),
        (
            "10 000 names",
            &agent,
            SDS,
            message(&many.encode_to_vec()),
            &["8"],
        ),
        (
            "a wrong type URL",
            &agent,
            SDS,
            message(&wrong.encode_to_vec()),
            &["3"],
        ),
    ] {
        let (code, text) = status(socket, path, body).await?;
        ensure!(codes.contains(&code.as_str()), "{what}: {code} {text}");
        ensure!(!text.is_empty(), "{what}: no text");
    }
    unharmed(&mut domain).await
}

async fn signet(domain: &Domain, args: &[&str]) -> Result<Output> {
    let output = Command::new(domain.signet())
        .args(args)
        .kill_on_drop(true)
        .output();
    Ok(tokio::time::timeout(wait::PATIENCE, output).await??)
}

/// A command in mounts of its own, where `script` may mount what it likes.
fn own_mounts(domain: &Domain, script: &str, folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(folder)
        .arg(domain.signet())
        .arg(domain.path("server.conf"))
        .kill_on_drop(true);
    command
}

fn refused(output: &Output, expected: &[&str]) -> Result<()> {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(!said.contains("panicked"), "{said}");
    for part in expected {
        ensure!(said.contains(part), "no {part:?} in: {said}");
    }
    Ok(())
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

async fn drop_garbage<S>(mut stream: S, bytes: &[u8]) -> Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    // The other end may close before all is written or read.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(wait::PATIENCE, stream.read_to_end(&mut rest)).await;
    let _ = ended.context("the connection ends")?;
    Ok(())
}

async fn unharmed(domain: &mut Domain) -> Result<()> {
    domain.healthy("server").await?;
    domain.healthy("agent").await?;
    for log in [domain.server()?.log()?, domain.agent()?.log()?] {
        ensure!(!log.contains("panicked"), "{log}");
    }
    Ok(())
}

/// A gRPC frame that tells `length`, whatever follows.
fn frame(length: u32, message: &[u8]) -> Bytes {
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    frame.into()
}

fn message(message: &[u8]) -> Bytes {
    frame(u32::try_from(message.len()).unwrap_or(u32::MAX), message)
}

/// The `grpc-status` and `grpc-message` of a call.
async fn status(socket: &Path, path: &str, body: Bytes) -> Result<(String, String)> {
    let io = TokioIo::new(UnixStream::connect(socket).await?);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await?;
    let request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body))?;
    let calling = async {
        let (mut head, body) = sender.send_request(request).await?.into_parts();
        if let Some(trailers) = body.collect().await?.trailers() {
            head.headers.extend(trailers.clone());
        }
        let header = |name: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        anyhow::Ok((header("grpc-status"), header("grpc-message")))
    };
    tokio::select! {
        answer = tokio::time::timeout(wait::PATIENCE, calling) => answer?,
        ended = connection => {
            ended?;
            anyhow::bail!("the connection ended before the answer")
        }
    }
}

/// Entries of one call.
const BATCH: usize = 100;

/// A server whose data folder is a file system of 16 MiB.
struct SmallDisk {
    domain: Domain,
    shell: tokio::process::Child,
    orders: tokio::process::ChildStdin,
    answers: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl SmallDisk {
    async fn start() -> Result<Self> {
        const SCRIPT: &str = r#"
            mount -t tmpfs -o size=16m,mode=700 tmpfs "$1" || exit 1
            start() { "$signet" server run -config "$config" 2>>"$log" >&2 & server=$!; }
            stop() { kill -TERM $server; wait $server || exit 1; }
            signet=$2 config=$3 log=$3.log
            start; echo started
            while read -r order; do
                case $order in
                    fill) cat /dev/zero > "$1/filler" 2>/dev/null ;;
                    free) rm "$1/filler" ;;
                    restart) stop; start ;;
                esac
                echo "$order"
            done
            stop; echo ended
        "#;
        let domain = Domain::new(Settings::default())?;
        // The folder of the data is the small disk; the socket stays where all can see it.
        let config = std::fs::read_to_string(domain.path("server.conf"))?;
        let folder = domain.folder().display().to_string();
        let config = config.replace(&format!("{folder}/server"), &format!("{folder}/disk"));
        let config = config.replace("disk/api.sock", "server/api.sock");
        domain.write("server.conf", &config)?;
        std::fs::create_dir(domain.path("disk"))?;
        let mut shell = own_mounts(&domain, SCRIPT, &domain.path("disk"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The shell ends its server when it has no more orders; killed, it could not.
            .kill_on_drop(false)
            .spawn()?;
        let orders = shell.stdin.take().context("stdin is piped")?;
        let answers = shell.stdout.take().context("stdout is piped")?;
        let mut disk = Self {
            domain,
            shell,
            orders,
            answers: BufReader::new(answers).lines(),
        };
        disk.hear("started").await?;
        disk.healthy().await?;
        Ok(disk)
    }

    async fn tell(&mut self, order: &str) -> Result<()> {
        self.orders
            .write_all(format!("{order}\n").as_bytes())
            .await?;
        self.hear(order).await
    }

    async fn hear(&mut self, answer: &str) -> Result<()> {
        let line = tokio::time::timeout(wait::PATIENCE, self.answers.next_line()).await??;
        ensure!(
            line.as_deref() == Some(answer),
            "not {answer:?} but {line:?}"
        );
        Ok(())
    }

    async fn healthy(&self) -> Result<()> {
        wait::until("the server is healthy", || async {
            self.domain.server_cli(&["healthcheck"]).await?;
            Ok(Some(()))
        })
        .await
    }

    /// Creates [`BATCH`] entries numbered from `from` on.
    async fn create_entries(&self, from: usize) -> Result<()> {
        let entries: Vec<_> = (from..from + BATCH)
            .map(|n| {
                serde_json::json!({
                    "spiffe_id": self.domain.id(&format!("/{n}")),
                    "parent_id": self.domain.agent_id(),
                    "selectors": [{"type": "unix", "value": format!("path:/{}/{n}", "x".repeat(200))}],
                })
            })
            .collect();
        let path = self.domain.path("entries.json");
        let mut file = std::fs::File::create(&path)?;
        file.write_all(
            serde_json::json!({ "entries": entries })
                .to_string()
                .as_bytes(),
        )?;
        let args = ["entry", "create", "-data", utf8(&path)?];
        self.domain.server_cli(&args).await?;
        Ok(())
    }

    async fn count(&self) -> Result<usize> {
        let said = self.domain.server_cli(&["entry", "count"]).await?;
        let number = said.split_whitespace().find_map(|word| word.parse().ok());
        number.with_context(|| format!("a number in {said:?}"))
    }

    async fn end(mut self) -> Result<()> {
        drop(self.orders);
        let line = tokio::time::timeout(wait::PATIENCE, self.answers.next_line()).await??;
        let log = std::fs::read_to_string(self.domain.path("server.conf.log"))?;
        ensure!(line.as_deref() == Some("ended"), "{line:?}: {log}");
        ensure!(!log.contains("panicked"), "{log}");
        self.shell.wait().await?;
        Ok(())
    }
}
