//! Workload attestation: from a peer to its selectors.
