//! The unix attestor, against real processes: rows AS-01 to AS-05 of the attack surface.

use std::io::{BufRead as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agent::config::{UnixAttestorConfig, WorkloadAttestors};
use agent::workload::{AttestError, Attestors};
use identity::{Selector, Selectors};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Uid, getegid, geteuid, setuid};
use runtime::Peer;

fn attestors(workload_size_limit: Option<u64>) -> Attestors {
    let unix = UnixAttestorConfig {
        discover_workload_path: true,
        workload_size_limit,
    };
    Attestors::new(&WorkloadAttestors {
        unix: Some(unix),
        k8s: None,
    })
}

fn holds(selectors: &Selectors, selector: &str) -> bool {
    selectors.contains(&Selector::parse(selector).unwrap())
}

fn kinds(selectors: &Selectors) -> Vec<&str> {
    let mut kinds: Vec<_> = selectors
        .iter()
        .filter_map(|selector| selector.value().split(':').next())
        .collect();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn this_process_is_attested() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let peer = Peer::of(&ours).unwrap();
    let selectors = attestors(None).attest(&peer).await.unwrap();
    let here = std::env::current_exe().unwrap();
    assert!(holds(&selectors, &format!("unix:uid:{}", geteuid())));
    assert!(holds(&selectors, &format!("unix:gid:{}", getegid())));
    assert!(holds(&selectors, &format!("unix:path:{}", here.display())));
    assert!(kinds(&selectors).contains(&"sha256"), "{selectors:?}");
    assert!(selectors.iter().all(|selector| selector.kind() == "unix"));
}

#[tokio::test]
async fn a_large_program_is_not_hashed() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let peer = Peer::of(&ours).unwrap();
    for limit in [0, 100] {
        let selectors = attestors(Some(limit)).attest(&peer).await.unwrap();
        let kinds = kinds(&selectors);
        assert!(kinds.contains(&"path") && !kinds.contains(&"sha256"));
    }
    let selectors = attestors(Some(u64::MAX)).attest(&peer).await.unwrap();
    assert!(kinds(&selectors).contains(&"sha256"));
}

/// A process that becomes another program is that program from its next stream on: nothing is kept for the connection.
#[tokio::test]
async fn as_02_after_exec_a_caller_is_the_new_program() {
    let mut caller = Caller::start("exec");
    let attestors = attestors(None);
    let program = |selectors: &Selectors| {
        let value = |kind| {
            let value = selectors
                .iter()
                .find_map(|one| one.value().strip_prefix(kind));
            value.map(str::to_owned)
        };
        (value("path:"), value("sha256:"))
    };
    let before = program(&attestors.attest(&caller.peer).await.unwrap());
    let here = std::env::current_exe().unwrap();
    assert_eq!(before.0.as_deref(), here.to_str());
    caller.go_on();
    let new = std::fs::canonicalize(OTHER_PROGRAM).unwrap();
    let after = loop {
        let now = program(&attestors.attest(&caller.peer).await.unwrap());
        if now.0.as_deref() == new.to_str() {
            break now;
        }
        // In between it is still the old program, or none: never the name of one with the content of the other.
        assert!(now == before || now == (None, None), "{now:?}");
    };
    assert!(after.1.is_some() && after.1 != before.1, "{after:?}");
    assert_eq!(
        program(&attestors.attest(&caller.peer).await.unwrap()),
        after
    );
}

#[tokio::test]
async fn as_01_a_caller_that_has_ended_is_nobody() {
    let mut caller = Caller::start("end");
    let attestors = attestors(None);
    attestors.attest(&caller.peer).await.unwrap();
    caller.go_on();
    caller.child.wait().unwrap();
    let error = attestors.attest(&caller.peer).await.unwrap_err();
    assert!(matches!(error, AttestError::Gone { pid } if Some(pid) == caller.peer.pid()));
}

/// The connection outlives the process that made it, in the hands of its child: that is not the caller.
#[tokio::test]
async fn as_01_an_inherited_connection_is_nobodys() {
    let mut caller = Caller::start("bequeath");
    caller.go_on();
    caller.child.wait().unwrap();
    let error = attestors(None).attest(&caller.peer).await.unwrap_err();
    assert!(matches!(error, AttestError::Gone { .. }), "{error}");
}

#[tokio::test]
async fn as_02_a_caller_that_changed_its_user_must_connect_again() {
    if !geteuid().is_root() {
        testkit::skipped("only root can change its user");
        return;
    }
    let mut caller = Caller::start("setuid");
    let attestors = attestors(None);
    attestors.attest(&caller.peer).await.unwrap();
    caller.go_on();
    let error = loop {
        match attestors.attest(&caller.peer).await {
            Ok(_) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            AttestError::Changed {
                was_uid: 0,
                uid: NOBODY,
                ..
            }
        ),
        "{error}"
    );
}

const NOBODY: u32 = 65_534;

const OTHER_PROGRAM: &str = "/bin/cat";

/// Another process, connected to us: this test binary once more. It waits for a word, and then does what its part says.
pub(crate) struct Caller {
    pub(crate) child: Child,
    pub(crate) peer: Peer,
    _connection: UnixStream,
}

impl Caller {
    pub(crate) fn start(part: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "attestation::caller", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        writeln!(stdin, "{}", path.display()).unwrap();
        writeln!(stdin, "{part}").unwrap();
        let (connection, _) = listener.accept().unwrap();
        Self {
            child,
            peer: Peer::of(&connection).unwrap(),
            _connection: connection,
        }
    }

    fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap(), "go on").unwrap();
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the other process of the tests above"]
fn caller() {
    let mut lines = std::io::stdin().lock().lines();
    let mut line = || lines.next().and_then(Result::ok);
    let (Some(path), Some(part)) = (line(), line()) else {
        return;
    };
    let connection = UnixStream::connect(Path::new(&path)).unwrap();
    if line().is_none() {
        return;
    }
    match part.as_str() {
        "exec" => {
            fcntl(&connection, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            panic!("{}", Command::new(OTHER_PROGRAM).exec());
        }
        "bequeath" => {
            fcntl(&connection, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            // It ends with our standard input, which the test holds.
            let heir = Command::new(OTHER_PROGRAM).spawn().unwrap();
            std::mem::forget(heir);
        }
        "setuid" => {
            setuid(Uid::from_raw(NOBODY)).unwrap();
            line();
        }
        _ => {}
    }
}
