//! For tests only: a server and an agent in process, a fake Envoy, and the rooms test.
//!
//! A test may stop at once, so what fails here panics with what was being done.

mod agent;
mod aloud;
mod client;
mod forge;
pub mod raw;
mod server;

pub use agent::TestAgent;
pub use aloud::{aloud, skipped};
pub use client::{Tls, local_channel, remote_channel};
pub use forge::forge;
pub use server::{TestServer, attest_with};
