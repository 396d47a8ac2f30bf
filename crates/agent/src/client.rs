//! The mTLS channel to the server.
