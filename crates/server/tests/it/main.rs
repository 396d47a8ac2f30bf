//! The server in process, called over its real sockets.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod abuse;
mod agent;
mod bundle;
mod entry;
mod federation;
mod k8s_psat;
mod policy;
mod running;
mod scm;
mod start;
mod svid;
mod tls;
