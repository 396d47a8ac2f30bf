use std::collections::VecDeque;
use std::fmt;
use std::future::{Ready, pending, ready};
use std::io;
use std::time::Duration;

use http::Request;
use http_body_util::Empty;
use runtime::Supervisor;
use runtime::grpc::{Limits, serve};
use runtime::listen::{Listen, UnixListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::UnixStream;

use crate::client::{Flood, WhoAsks, ask, connect};

/// A listener that gives what the test tells it to, and then nothing more.
struct Scripted(VecDeque<io::Result<(&'static str, DuplexStream)>>);

impl Scripted {
    fn of(script: impl IntoIterator<Item = io::Result<(&'static str, DuplexStream)>>) -> Self {
        Self(script.into_iter().collect())
    }
}

impl Listen for Scripted {
    type Stream = DuplexStream;
    type Peer = &'static str;
    type Key = &'static str;
    type Handshake = Ready<io::Result<(DuplexStream, &'static str)>>;

    async fn accept(&mut self) -> io::Result<(&'static str, Self::Handshake)> {
        match self.0.pop_front() {
            Some(Ok((key, stream))) => Ok((key, ready(Ok((stream, key))))),
            Some(Err(error)) => Err(error),
            None => pending().await,
        }
    }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scripted")
    }
}

fn pair(key: &'static str) -> (DuplexStream, io::Result<(&'static str, DuplexStream)>) {
    let (ours, theirs) = duplex(1 << 16);
    (ours, Ok((key, theirs)))
}

/// Whether the other end closes `stream`; what it sends before does not count.
async fn is_closed(stream: &mut DuplexStream) -> bool {
    let mut sent = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(3600), stream.read_to_end(&mut sent)).await;
    end.is_ok()
}

#[tokio::test(start_paused = true)]
async fn accepting_survives_want_of_descriptors() {
    let (_supervisor, tasks) = Supervisor::new();
    let (stream, served) = pair("a");
    let emfile = || Err(io::Error::from_raw_os_error(nix::libc::EMFILE));
    let reset = Err(io::Error::from(io::ErrorKind::ConnectionAborted));
    let listener = Scripted::of([emfile(), reset, emfile(), emfile(), served]);
    serve(listener, WhoAsks, Limits::tcp(), &tasks);
    let mut client = connect(stream, &tasks).await;
    assert_eq!(ask(&mut client).await.unwrap(), "nobody");
    assert!(!tasks.shutdown().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn as_13_connections_over_the_limit_are_closed() {
    let (_supervisor, tasks) = Supervisor::new();
    let (first, a) = pair("a");
    let (mut second, b) = pair("a");
    let (third, c) = pair("b");
    let limits = Limits {
        connections_per_peer: 1,
        ..Limits::unix()
    };
    serve(Scripted::of([a, b, c]), WhoAsks, limits, &tasks);
    for stream in [first, third] {
        let mut client = connect(stream, &tasks).await;
        assert_eq!(ask(&mut client).await.unwrap(), "nobody");
    }
    assert!(is_closed(&mut second).await);
}

#[tokio::test(start_paused = true)]
async fn as_13_who_says_nothing_is_closed() {
    let (_supervisor, tasks) = Supervisor::new();
    let (mut silent, a) = pair("a");
    let (mut halting, b) = pair("a");
    serve(Scripted::of([a, b]), WhoAsks, Limits::unix(), &tasks);
    halting.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    assert!(is_closed(&mut silent).await);
    assert!(is_closed(&mut halting).await);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_does_not_hold_up_shutdown() {
    let (supervisor, tasks) = Supervisor::new();
    let (silent, served) = pair("a");
    serve(Scripted::of([served]), WhoAsks, Limits::unix(), &tasks);
    tokio::time::sleep(Duration::from_secs(1)).await;
    tasks.stop();
    let started = tokio::time::Instant::now();
    supervisor.run(Duration::from_secs(60)).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_does_not_hold_up_shutdown_for_long() {
    let (supervisor, tasks) = Supervisor::new();
    let (stream, served) = pair("a");
    serve(Scripted::of([served]), Flood, Limits::unix(), &tasks);
    let mut client = connect(stream, &tasks).await;
    let request = Request::get("http://localhost/");
    let request = request.body(Empty::new()).unwrap();
    let _unread = client.send_request(request).await.unwrap();
    tasks.stop();
    let started = tokio::time::Instant::now();
    supervisor.run(Duration::from_secs(60)).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_answers_no_ping_is_closed() {
    let (_supervisor, tasks) = Supervisor::new();
    let (mut stream, served) = pair("a");
    serve(Scripted::of([served]), WhoAsks, Limits::unix(), &tasks);
    // A client's first words, and then none: an empty SETTINGS frame.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    assert!(is_closed(&mut stream).await);
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_asked_to_end() {
    let (_supervisor, tasks) = Supervisor::new();
    let (stream, served) = pair("a");
    serve(Scripted::of([served]), WhoAsks, Limits::tcp(), &tasks);
    let mut client = connect(stream, &tasks).await;
    ask(&mut client).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600) * 9 / 10 - Duration::from_secs(1)).await;
    ask(&mut client).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600) / 5).await;
    assert!(client.is_closed());
}

#[tokio::test]
async fn shutdown_drains_connections() {
    let (supervisor, tasks) = Supervisor::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    serve(
        UnixListener::bind(&path, 0o777).unwrap(),
        WhoAsks,
        Limits::unix(),
        &tasks,
    );
    let mut client = connect(UnixStream::connect(&path).await.unwrap(), &tasks).await;
    let pid = format!("pid {}", std::process::id());
    assert_eq!(ask(&mut client).await.unwrap(), pid);
    tasks.stop();
    supervisor.run(Duration::from_secs(60)).await.unwrap();
    assert!(client.is_closed());
    assert!(!path.exists());
}

/// What gRPC's C-core writes first on a unix socket, with its percent-encoded `:authority`.
fn c_cores_words() -> Vec<u8> {
    let literal = |name: &str, value: &str| {
        let mut field = vec![0x40, u8::try_from(name.len()).unwrap()];
        field.extend(name.as_bytes());
        field.push(u8::try_from(value.len()).unwrap());
        field.extend(value.as_bytes());
        field
    };
    let block = [
        literal(":path", "/ask"),
        literal(":authority", "tmp%2Fspire%2Dagent%2Fapi.sock"),
        vec![0x83, 0x86],
        literal("content-type", "application/grpc"),
        literal("te", "trailers"),
    ]
    .concat();
    let mut words = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    words.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    words.extend(block);
    words
}

#[tokio::test]
async fn c_core_clients_are_understood_on_unix_sockets() {
    let (_supervisor, tasks) = Supervisor::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    serve(
        UnixListener::bind(&path, 0o777).unwrap(),
        WhoAsks,
        Limits::unix(),
        &tasks,
    );
    assert_eq!(first_answer(&path).await, 0x1);
}

/// The kind of the first frame on stream 1: HEADERS is 0x1, RST_STREAM 0x3.
async fn first_answer(path: &std::path::Path) -> u8 {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(&c_cores_words()).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if head[8] == 1 {
            return head[3];
        }
    }
}
