//! What the controller gives to the cluster itself: the trust bundle (CTL-20), and answers about custom resources before they
//! are stored (CTL-12). Its rights are those of the chart, no more.

mod bundle;
mod ca_bundles;
mod resources;
mod stage;
