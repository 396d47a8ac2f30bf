//! The listeners: the TCP endpoint behind TLS, the private unix socket, health over HTTP.
