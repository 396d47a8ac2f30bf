//! `signet k8s …`

mod capture;
mod controller;
mod csi;
mod files;
mod inject;
mod injector;
mod policy;
mod rules;

use anyhow::Result;

/// Programs for Kubernetes, and commands for manifests.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the controller: registration entries from ClusterSPIFFEIDs and pods
    Controller(controller::Controller),
    /// Add to manifests what their annotations ask for, as the webhook does
    Inject(inject::Inject),
    /// Take out of manifests what was injected
    Uninject(inject::Uninject),
    /// Run the injector: a webhook that gives pods their socket, files or Envoy
    Injector(injector::Injector),
    /// Run the CSI driver, which shows the agent's socket to pods
    Csi(csi::Csi),
    /// Keep SVID, key and bundle as PEM files
    Files(files::Files),
    /// Redirect a pod's connections to its Envoy, by packet filter rules in the network namespace it runs in
    Capture(capture::Capture),
    /// Print the MutatingAdmissionPolicy that does what mode `socket` does
    Policy(policy::Policy),
}

impl Command {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Controller(controller) => controller.run(),
            Self::Inject(inject) => inject.run(),
            Self::Uninject(uninject) => uninject.run(),
            Self::Injector(injector) => injector.run(),
            Self::Csi(csi) => csi.run(),
            Self::Files(files) => files.run(),
            Self::Capture(capture) => capture.run(),
            Self::Policy(policy) => policy.run(),
        }
    }
}
