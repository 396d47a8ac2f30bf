//! spire.api.server.bundle.v1
