use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{SIGNET, refusal, run};

/// A server in a folder of its own.
struct Server {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            child: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, port: u16) -> PathBuf {
        let folder = self.folder.path().display();
        let text = format!(
            r#"
server {{
    trust_domain = "example.org"
    bind_address = "127.0.0.1"
    bind_port = {port}
    data_dir = "{folder}/data"
    socket_path = "{folder}/api.sock"
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "sqlite3"
            connection_string = "{folder}/data/datastore.sqlite3"
        }}
    }}
    KeyManager "disk" {{
        plugin_data {{
            keys_path = "{folder}/data/keys.json"
        }}
    }}
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
}}
"#
        );
        let path = self.path("server.conf");
        fs::write(&path, text).unwrap();
        path
    }

    fn start(&mut self, program: &Path, before: &[&str]) {
        let config = self.config(0);
        let child = Command::new(program)
            .args(before)
            .args(["run", "-config"])
            .arg(config)
            .args(["-logFile"])
            .arg(self.path("server.log"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_until(|| {
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "{}", self.log());
            self.is_healthy()
        });
    }

    fn is_healthy(&self) -> bool {
        let socket = self.path("api.sock");
        let output = run(
            SIGNET,
            &[
                "server",
                "healthcheck",
                "-socketPath",
                socket.to_str().unwrap(),
            ],
        );
        output.status.success() && output.stdout == b"Server is healthy.\n"
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }
}

fn wait_until(mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it did not happen");
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_server_starts_serves_and_drains() {
    let mut server = Server::new();
    server.start(Path::new(SIGNET), &["server"]);
    let mode = |name: &str| {
        server
            .path(name)
            .symlink_metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("data"), mode("data/keys.json"), mode("api.sock")),
        (0o700, 0o600, 0o770)
    );

    // A second one on the same socket is refused, and the first goes on.
    let config = server.path("server.conf");
    let said = refusal(&["server", "run", "-config", config.to_str().unwrap()]);
    assert!(said.contains("in use"), "{said}");

    // Garbage on the socket harms nobody.
    let mut garbage = UnixStream::connect(server.path("api.sock")).unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n\0\xff").unwrap();
    let _silent = UnixStream::connect(server.path("api.sock")).unwrap();
    assert!(server.is_healthy());

    // The log moves on after it was moved away.
    fs::rename(server.path("server.log"), server.path("server.log.1")).unwrap();
    server.signal(Signal::SIGUSR2);
    wait_until(|| server.log().contains("log file reopened"));
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert!(server.log().contains("ended"), "{}", server.log());
    assert!(!server.path("api.sock").exists());
}

#[test]
fn called_as_spire_server_it_is_that_program() {
    let mut server = Server::new();
    let program = server.path("spire-server");
    std::os::unix::fs::symlink(SIGNET, &program).unwrap();
    server.start(&program, &[]);
    server.signal(Signal::SIGINT);
    assert!(server.wait().success());
}

#[test]
fn e7_a_port_in_use_is_named() {
    let server = Server::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = server.config(address.port());
    let said = refusal(&["server", "run", "-config", config.to_str().unwrap()]);
    assert!(
        said.contains(&address.to_string()) && said.contains("in use"),
        "{said}"
    );
}

#[test]
fn e7_a_data_folder_that_cannot_be_made_is_named() {
    let server = Server::new();
    let config = server.config(0);
    fs::write(server.path("data"), "a file in the way").unwrap();
    let said = refusal(&["server", "run", "-config", config.to_str().unwrap()]);
    assert!(
        said.contains(server.path("data").to_str().unwrap()),
        "{said}"
    );
}

#[test]
fn nobody_there_is_unhealthy() {
    for (program, name) in [("server", "Server"), ("agent", "Agent")] {
        let said = refusal(&[program, "healthcheck", "-socketPath", "/tmp/none/api.sock"]);
        assert!(said.contains(&format!("{name} is unhealthy")), "{said}");
        assert!(said.contains("/tmp/none/api.sock"), "{said}");
    }
}

#[test]
fn wrong_usage_fails_and_help_does_not() {
    assert!(refusal(&["server", "dance"]).contains("dance"));
    assert!(refusal(&["server", "run", "-nonsense"]).contains("nonsense"));
    assert!(run(SIGNET, &["-help"]).status.success());
    assert!(run(SIGNET, &["server", "run", "-h"]).status.success());
    assert!(run(SIGNET, &["--version"]).status.success());
}
