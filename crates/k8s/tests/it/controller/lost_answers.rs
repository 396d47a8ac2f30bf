//! CTL-18: the server does what it was asked, and the connection ends before it says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWriteExt as _, copy, sink};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use super::*;

/// A way to the server that can lose its answers.
struct Way {
    socket: PathBuf,
    lossy: watch::Sender<bool>,
    /// Ends the connections on which answers were lost.
    end: Arc<Notify>,
    connections: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Way {
    fn to(server: &Path, tasks: &Tasks) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("way.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (lossy, state) = watch::channel(false);
        let way = Self {
            socket,
            lossy,
            end: Arc::new(Notify::new()),
            connections: Arc::default(),
            _folder: folder,
        };
        let (server, end) = (server.to_owned(), way.end.clone());
        let connections = way.connections.clone();
        let carriers = tasks.clone();
        tasks.spawn("way", async move {
            loop {
                let (caller, _) = listener.accept().await?;
                connections.fetch_add(1, Ordering::Relaxed);
                let server = UnixStream::connect(&server).await?;
                let carrying = carry(caller, server, state.clone(), end.clone());
                carriers.spawn("connection", async move {
                    carrying.await;
                    Ok(())
                });
            }
        });
        way
    }
}

/// Carries both ways until one side ends; answers only while the way is not lossy.
async fn carry(
    caller: UnixStream,
    server: UnixStream,
    lossy: watch::Receiver<bool>,
    end: Arc<Notify>,
) {
    let (mut asks, answers) = caller.into_split();
    let (answered, mut asked) = server.into_split();
    tokio::select! {
        _ = copy(&mut asks, &mut asked) => {}
        () = back(answered, answers, lossy) => {}
        () = end.notified() => {}
    }
}

async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, lossy: watch::Receiver<bool>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = tokio::io::AsyncReadExt::read(&mut from, &mut bytes).await {
        if *lossy.borrow() {
            let _ = copy(&mut from, &mut sink()).await;
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctl_18_an_entry_whose_creation_was_not_answered_goes_with_its_pod() {
    let server = TestServer::start().await;
    let (_, tasks) = Supervisor::new();
    let way = Way::to(&server.addresses().socket, &tasks);
    let domain = server.id("/x").trust_domain().as_str().to_owned();
    let mut controller = Loop::at(&way.socket, &domain, "");
    // The test looks by another way than the loop.
    controller.signet = Signet::new(&server.addresses().socket);
    controller.list(&[rule(1, ID)], &pods(1)).await;
    controller.until(1).await;

    way.lossy.send_replace(true);
    controller.tell(Event::Apply(Kind::Pod, pod("lost"))).await;
    controller.until(2).await;
    // The pod goes before the loop could try again.
    controller.tell(Event::Delete(Kind::Pod, pod("lost"))).await;
    way.lossy.send_replace(false);
    let before = way.connections.load(Ordering::Relaxed);
    way.end.notify_waiters();
    let left = controller.until(1).await;
    assert!(left.values().all(|path| path.ends_with("/p0")), "{left:?}");
    assert!(way.connections.load(Ordering::Relaxed) > before);
    tasks.stop();
}
