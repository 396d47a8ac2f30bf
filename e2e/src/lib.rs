//! What the end-to-end tests, the demo and the benchmarks share: they drive the built binary, the real Envoy and
//! stock clients, each in a folder of its own, on loopback, and end only what they started.
#![expect(
    clippy::disallowed_methods,
    reason = "a driver of real processes lives on the real clock, the real environment and plain tasks"
)]

pub mod app;
pub mod bench;
pub mod binaries;
pub mod cluster;
pub mod controller;
pub mod domain;
pub mod envoy;
mod folder;
pub mod injector;
pub mod installation;
pub mod kubelet;
pub mod load;
pub mod mesh;
mod netns;
pub mod pods;
pub mod ports;
pub mod process;
pub mod release;
pub mod screen;
pub mod stock;
pub mod tls;
pub mod wait;

pub use domain::{Domain, Settings};
pub use envoy::{Bootstrap, Envoy, Sds, Validation};
pub use mesh::Mesh;
pub use process::Process;
pub use stock::Stock;
