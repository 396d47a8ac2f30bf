//! The client commands, as people and scripts call them: against a server in process, and against a Workload API.

mod agent;
mod server;
mod sockets;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::SIGNET;

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// Its output, when it went well.
    fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// What it said, when it failed with nothing on standard output.
    fn failed(self) -> String {
        assert_eq!((self.code, self.out.as_str()), (1, ""), "{}", self.err);
        self.err
    }
}

/// Runs `signet <line> -socketPath <socket>`; the line's words are parted by spaces.
fn signet(socket: &Path, line: &str) -> Ran {
    run(command(line).arg("-socketPath").arg(socket), "")
}

fn command(line: &str) -> Command {
    let mut command = Command::new(SIGNET);
    command.args(line.split_whitespace());
    command
}

fn run(command: &mut Command, stdin: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A command that needs none may end before it has read all.
    let _ = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
