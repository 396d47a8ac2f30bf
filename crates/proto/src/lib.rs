//! Generated gRPC from /proto, and the conversions between wire messages and identity's types.

pub mod discovery;

/// Envoy's own messages.
pub use envoy_types as envoy;
