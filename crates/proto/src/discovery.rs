//! The discovery protocol's messages (envoy/service/discovery/v3), as far as a server of secrets reads and writes them.
//!
//! Envoy's full messages would do, but Envoy sends 61 kB of node description with a request, of which a few fields
//! matter, and a response carries a secret that is encoded once for many streams. So a request skips what nobody
//! reads, and a resource is bytes: on the wire a message and its encoding are the same.

use prost::Message;
use prost::bytes::Bytes;
use prost_types::Struct;

/// What a client asks of a state-of-the-world stream.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryRequest {
    /// The version last accepted; empty at first.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Who asks; on the first request of a stream at least.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// All names wanted from now on.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// The type of the resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// The response that this accepts or rejects; empty at first.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Why that response was rejected.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<Status>,
}

/// What a state-of-the-world stream answers.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryResponse {
    /// The version of what the stream has given so far.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Encoded `google.protobuf.Any`s.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// The type of the resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Names this response on its stream.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Who answers.
    #[prost(message, optional, tag = "6")]
    pub control_plane: Option<ControlPlane>,
}

/// What a client asks of an incremental stream.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; on the first request of a stream at least.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// The type of the resources.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names wanted from now on, beside the earlier ones.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names no longer wanted.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// Versions by name that the client has from an earlier stream.
    #[prost(btree_map = "string, string", tag = "5")]
    pub initial_resource_versions: std::collections::BTreeMap<String, String>,
    /// The response that this accepts or rejects; empty when neither.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Why that response was rejected.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// What an incremental stream answers.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryResponse {
    /// For debugging: the version of all that the stream has given so far.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New or changed resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// The type of the resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Names this response on its stream.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names of resources that do not, or no longer, exist.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Who answers.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
}

/// A named resource of an incremental stream.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Its version.
    #[prost(string, tag = "1")]
    pub version: String,
    /// An encoded `google.protobuf.Any`.
    #[prost(bytes = "bytes", tag = "2")]
    pub resource: Bytes,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// Who asks: what is read of Envoy's description of itself.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// The operator's name for this Envoy.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The operator's name for the fleet it belongs to.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// Whatever the operator wrote.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
    /// The program's version.
    #[prost(message, optional, tag = "8")]
    pub user_agent_build_version: Option<BuildVersion>,
}

/// A program's version.
#[derive(Clone, PartialEq, Message)]
pub struct BuildVersion {
    /// As numbers.
    #[prost(message, optional, tag = "1")]
    pub version: Option<SemanticVersion>,
}

/// `major.minor`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SemanticVersion {
    /// The first number.
    #[prost(uint32, tag = "1")]
    pub major_number: u32,
    /// The second number.
    #[prost(uint32, tag = "2")]
    pub minor_number: u32,
}

/// Who answers; Envoy shows it in its statistics.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ControlPlane {
    /// Any text.
    #[prost(string, tag = "1")]
    pub identifier: String,
}

/// Why something failed (google/rpc/status.proto).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Status {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
}
