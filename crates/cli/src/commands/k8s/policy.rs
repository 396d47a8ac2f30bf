//! `signet k8s policy`

use anyhow::Result;
use k8s::offline;

use super::rules::RulesArgs;
use crate::output::say;

/// `k8s policy`
#[derive(clap::Args, Debug)]
pub(crate) struct Policy {
    /// The name of the policy and of its binding
    #[arg(long = "name", value_name = "NAME", default_value = "signet-socket")]
    name: String,
    #[command(flatten)]
    rules: RulesArgs,
}

impl Policy {
    pub(crate) fn run(self) -> Result<()> {
        let objects = k8s::policy::policy(&self.name, &self.rules.read()?);
        say(&offline::to_yaml(&objects)?.into())
    }
}
