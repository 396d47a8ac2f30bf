//! For tests only: a server and an agent in process, a fake Envoy, and the rooms test.
