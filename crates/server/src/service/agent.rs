//! spire.api.server.agent.v1
