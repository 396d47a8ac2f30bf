//! The runtime's parts together: real sockets, real TLS, real HTTP/2.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod client;
mod grpc;
mod pages;
mod tls;
mod unix;
