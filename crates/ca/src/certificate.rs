//! What leaves and CA certificates hold.
