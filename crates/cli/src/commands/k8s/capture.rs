//! `signet k8s capture`

use anyhow::Result;
use k8s::capture::{self, Interface, Net, Plan, Upstream};
use k8s::inject::upstream::parse_captured;

use crate::output::say;

/// `k8s capture`
#[derive(clap::Args, Debug)]
pub(crate) struct Capture {
    /// ID of the user Envoy runs as, whose own connections are left alone
    #[arg(long, value_name = "UID", required_unless_present = "remove")]
    envoy_user: Option<u32>,
    /// The app's ports, whose connections go to Envoy
    #[arg(long, value_name = "PORT,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    app_ports: Vec<u16>,
    /// Envoy's port for them
    #[arg(long, value_name = "PORT", default_value = "15006", value_parser = clap::value_parser!(u16).range(1..))]
    inbound_port: u16,
    /// Connections to this host (name, address or network) and port go to Envoy's local port; may be given again
    #[arg(long = "upstream", value_name = "LOCAL=HOST:PORT", value_parser = upstream)]
    upstreams: Vec<Upstream>,
    /// Networks whose connections are left alone
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',')]
    skip_cidrs: Vec<Net>,
    /// Interfaces whose connections are left alone
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    skip_interfaces: Vec<Interface>,
    /// Print the rules as nft writes them, and change nothing
    #[arg(long, conflicts_with = "remove")]
    dry_run: bool,
    /// Take the rules away
    #[arg(long)]
    remove: bool,
}

impl Capture {
    pub(crate) fn run(self) -> Result<()> {
        if self.remove {
            return Ok(capture::remove()?);
        }
        let plan = Plan {
            // Required by the arguments; nobody runs as the last ID.
            envoy_user: self.envoy_user.unwrap_or(u32::MAX),
            app_ports: self.app_ports,
            inbound_port: self.inbound_port,
            upstreams: self.upstreams,
            skip_nets: self.skip_cidrs,
            skip_interfaces: self.skip_interfaces,
        };
        let rules = plan.resolve()?;
        if !self.dry_run {
            capture::apply(&rules)?;
        }
        say(&rules.to_string().into())
    }
}

fn upstream(text: &str) -> Result<Upstream, String> {
    parse_captured(text).map_err(|problem| problem.to_string())
}
