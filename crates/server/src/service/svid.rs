//! spire.api.server.svid.v1
