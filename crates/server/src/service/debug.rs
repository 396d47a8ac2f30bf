//! spire.api.server.debug.v1
