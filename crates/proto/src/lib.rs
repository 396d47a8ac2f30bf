//! Generated gRPC from /proto, and the conversions between wire messages and identity's types.
