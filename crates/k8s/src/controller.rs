//! The controller: custom resources and pods become registration entries.
//!
//! Pure parts: [`crd`], [`config`], [`template`], [`desired`], [`plan`], [`validate`]. One loop owns the state.

pub mod config;
pub mod crd;
pub mod desired;
pub mod dry_run;
mod federation;
pub mod lint;
pub mod manifests;
pub mod plan;
mod publish;
pub mod reconcile;
pub mod run;
pub mod state;
pub mod template;
pub mod tenants;
pub mod validate;
mod watch;
mod webhook;
