//! Secret discovery for Envoy: the session and its secrets, both pure.
