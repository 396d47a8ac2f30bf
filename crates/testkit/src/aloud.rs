//! What a test says even when it passes: libtest keeps what the print macros write and shows it of failed tests only.

use std::io::Write;

/// Set, no test may be left out: a machine that claims to run everything sets it, so that it cannot pass by skipping.
const NO_SKIP: &str = "SIGNET_NO_SKIP";

/// Writes a line to the terminal, whatever becomes of the test.
pub fn aloud(line: impl std::fmt::Display) {
    // A terminal that is gone is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says that a test, or a part of it, is not run here, and why.
///
/// # Panics
/// Where `SIGNET_NO_SKIP` is set.
pub fn skipped(why: impl std::fmt::Display) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}", thread.name().unwrap_or("a test"));
    assert!(
        std::env::var_os(NO_SKIP).is_none_or(|value| value.is_empty()),
        "{line} ({NO_SKIP} is set)"
    );
    aloud(line);
}
