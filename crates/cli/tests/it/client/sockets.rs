//! Finding the server, and saying so when it is not there.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use tempfile::tempdir;
use testkit::TestServer;

use super::{command, run, signet};
use crate::SIGNET;

#[test]
fn no_server_is_told_with_what_to_do() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let path = socket.display();
    assert_eq!(
        signet(&socket, "server entry show").failed(),
        format!(
            "Error: cannot connect to {path}: there is no such socket; start the program, or say \
             where its socket is with -socketPath\n"
        )
    );
    // What a killed server leaves behind.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(
        signet(&socket, "agent api fetch")
            .failed()
            .contains("nobody listens on the socket any more")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_a_name() {
    let server = TestServer::start().await;
    let socket = server.addresses().socket.display().to_string();
    let (template, instance) = (socket.replace("private", "%i"), "private");
    let line = format!("server entry count -instance {instance}");
    let counted = run(
        command(&line).env("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE", &template),
        "",
    );
    assert_eq!(counted.ok(), "0 registration entries\n");
    let untold = run(
        command(&line).env_remove("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE"),
        "",
    );
    assert!(
        untold
            .failed()
            .contains("-instance needs SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn spires_names_for_programs_and_flags_work() {
    let server = TestServer::start().await;
    let socket = &server.addresses().socket;
    let spire_server = server.dir().path().join("spire-server");
    symlink(SIGNET, &spire_server).unwrap();
    let mut command = Command::new(&spire_server);
    command
        .args(["entry", "count", "--socket-path"])
        .arg(socket);
    assert_eq!(run(&mut command, "").ok(), "0 registration entries\n");
    let line = "server entry create --spiffe-id spiffe://example.org/a -node=true -selector a:b";
    let created = signet(socket, line).ok();
    assert!(created.contains("Parent ID               : spiffe://example.org/spire/server\n"));
}
