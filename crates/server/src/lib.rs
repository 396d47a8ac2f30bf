//! The issuing server: who is calling, may they, node attestation, issuing, rotation.
//!
//! [`Config::parse`] reads a `server.conf`; [`Server::build`] opens the store and the keys, prepares the first authority
//! and binds every listener; [`Server::run`] serves until it is told to stop.

#![allow(dead_code, reason = "the parts are being joined")]

mod attest;
mod authority;
mod caller;
pub mod config;
mod endpoints;
mod entries;
mod policy;
mod rpc;
mod service;

pub use config::Config;
