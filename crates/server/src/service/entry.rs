//! spire.api.server.entry.v1
