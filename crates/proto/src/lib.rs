//! Generated gRPC from /proto, and the conversions between wire messages and identity's types.
//!
//! The modules follow the packages: [`spire`] holds the SPIRE server and agent APIs, [`workload`] the SPIFFE Workload
//! API (whose package has no name), [`csi`] and [`pluginregistration`] what a kubelet calls, [`envoy`] Envoy's own
//! messages and [`discovery`] slim ones beside them. Wire messages
//! stop here: the other rooms work with `identity`'s types and convert with [`convert`].

pub mod convert;
pub mod discovery;
pub mod envoy;
mod redact;

/// All of /proto, compiled: an encoded `FileDescriptorSet` without comments, for reflection and JSON output.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Includes one package's generated code under the lints that generated code cannot keep.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            clippy::allow_attributes_without_reason,
            clippy::all,
            clippy::pedantic,
            clippy::nursery,
            reason = "generated"
        )]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
    };
}

generated! {
    /// The SPIFFE Workload API; its package has no name, so its path on the wire is `/SpiffeWorkloadAPI/<method>`.
    workload, "_"
}

/// The Container Storage Interface, as far as a node-only driver of ephemeral volumes serves it.
pub mod csi {
    generated! { /// `csi.v1`.
    v1, "csi.v1" }
}

generated! {
    /// How a plugin makes itself known to the kubelet (`pluginregistration`, version 1).
    pluginregistration, "pluginregistration"
}

/// The SPIRE APIs, module by package.
pub mod spire {
    /// Agent APIs outside `spire.api`.
    pub mod agent {
        /// The agent's debug service.
        pub mod debug {
            generated! {
                /// `spire.agent.debug.v1`: not below `spire.api`, unlike its neighbours.
                v1, "spire.agent.debug.v1"
            }
        }
    }

    /// The APIs proper.
    pub mod api {
        generated! {
            /// Messages the APIs share.
            types, "spire.api.types"
        }

        /// Served by the server.
        pub mod server {
            /// Attesting, renewing and managing agents.
            pub mod agent {
                generated! { /// `spire.api.server.agent.v1`.
                v1, "spire.api.server.agent.v1" }
            }
            /// Bundles, own and foreign.
            pub mod bundle {
                generated! { /// `spire.api.server.bundle.v1`.
                v1, "spire.api.server.bundle.v1" }
            }
            /// The server's state.
            pub mod debug {
                generated! { /// `spire.api.server.debug.v1`.
                v1, "spire.api.server.debug.v1" }
            }
            /// Registration entries.
            pub mod entry {
                generated! { /// `spire.api.server.entry.v1`.
                v1, "spire.api.server.entry.v1" }
            }
            /// The life of the server's authorities.
            pub mod localauthority {
                generated! { /// `spire.api.server.localauthority.v1`.
                v1, "spire.api.server.localauthority.v1" }
            }
            /// The server's log level.
            pub mod logger {
                generated! { /// `spire.api.server.logger.v1`.
                v1, "spire.api.server.logger.v1" }
            }
            /// Issuing SVIDs.
            pub mod svid {
                generated! { /// `spire.api.server.svid.v1`.
                v1, "spire.api.server.svid.v1" }
            }
            /// Federation relationships.
            pub mod trustdomain {
                generated! { /// `spire.api.server.trustdomain.v1`.
                v1, "spire.api.server.trustdomain.v1" }
            }
        }

        /// Served by the agent on its admin socket.
        pub mod agent {
            /// Identities of other workloads, for authorised delegates.
            pub mod delegatedidentity {
                generated! { /// `spire.api.agent.delegatedidentity.v1`.
                v1, "spire.api.agent.delegatedidentity.v1" }
            }
            /// The agent's log level.
            pub mod logger {
                generated! { /// `spire.api.agent.logger.v1`.
                v1, "spire.api.agent.logger.v1" }
            }
        }
    }
}
