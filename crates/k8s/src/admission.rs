//! Admission webhooks (admission.k8s.io/v1): the reviews, an HTTPS server for them, its certificate, and the `caBundle` by which
//! the API server trusts it.
//!
//! * [`review`] reads an AdmissionReview and writes the answer; no I/O.
//! * [`server`] serves handlers by path, within limits.
//! * [`serving`] gets the certificate: from the Workload API, or minted by the server. It is held in memory only.
//! * [`ca_bundle`] keeps the roots in the webhook configurations.

pub mod ca_bundle;
pub mod review;
pub mod server;
pub mod serving;
