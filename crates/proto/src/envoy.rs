//! What Signet uses of Envoy's APIs, re-exported so that only this room names the crate they come from.

pub use envoy_types::pb::envoy::config::core::v3 as core;
pub use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub use envoy_types::pb::envoy::service::discovery::v3 as discovery;
pub use envoy_types::pb::envoy::service::secret::v3 as secret;
pub use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub use envoy_types::pb::google::protobuf::Any;
