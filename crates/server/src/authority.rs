//! The authorities as a living thing: rotation, the published bundle, the server's own SVID.
