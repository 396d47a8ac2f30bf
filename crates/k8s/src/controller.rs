//! The controller: custom resources and pods become registration entries.
//!
//! Pure parts: [`crd`], [`config`], [`template`], [`desired`], [`plan`], [`validate`]. One loop owns the state.

pub mod config;
pub mod crd;
pub mod desired;
pub mod plan;
pub mod state;
pub mod template;
pub mod validate;
