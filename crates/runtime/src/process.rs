//! The process itself.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Prepares a process that holds keys and many connections: no core files and no other process of the same user reading its
/// memory, and as many open files as the hard limit allows. What the system refuses is logged and goes without.
pub fn harden() {
    let steps = [
        (
            "keep core files off",
            setrlimit(Resource::RLIMIT_CORE, 0, 0),
        ),
        ("keep debuggers off", set_dumpable(false)),
        ("raise the limit of open files", raise_open_files()),
    ];
    for (step, done) in steps {
        if let Err(error) = done {
            tracing::warn!(%error, "cannot {step}");
        }
    }
}

fn raise_open_files() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}
