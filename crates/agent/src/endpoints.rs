//! The public socket: Workload API, SDS, health and reflection.
