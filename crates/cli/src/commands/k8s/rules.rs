//! The injector's rules, for the commands that work without it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use identity::TrustDomain;
use k8s::inject::Rules;
use serde_json::Value;

/// Where the rules come from.
#[derive(clap::Args, Debug)]
pub(crate) struct RulesArgs {
    /// The injector's configuration file, or its section `inject` alone
    #[arg(long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The trust domain, when the file names none
    #[arg(long = "trustDomain", value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
}

impl RulesArgs {
    /// Reads and checks them.
    pub(crate) fn read(&self) -> Result<Rules> {
        let section = self.config.as_deref().map(read).transpose()?;
        let names_one = section
            .as_ref()
            .is_some_and(|section| section.get("trustDomain").is_some());
        let mut rules: Rules = match section {
            Some(section) => serde_json::from_value(section).context(self.told())?,
            None => Rules::default(),
        };
        if let (Some(trust_domain), false) = (&self.trust_domain, names_one) {
            rules.trust_domain = trust_domain.clone();
        }
        let problems = rules.validate();
        if !problems.is_empty() {
            bail!("{}:\n  {}", self.told(), problems.join("\n  "));
        }
        Ok(rules)
    }

    fn told(&self) -> String {
        let file = self
            .config
            .as_deref()
            .map(|file| format!(" of {}", file.display()));
        format!("the injection rules{}", file.unwrap_or_default())
    }
}

/// The section `inject` of an injector's configuration, or a file that is that section alone.
fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let mut whole = k8s::offline::parse(&text).with_context(|| path.display().to_string())?;
    if !whole.is_object() {
        bail!(
            "{}: give the injector's configuration: `key: value` lines",
            path.display()
        );
    }
    let is_program = ["inject", "webhook_configurations", "certificate"]
        .iter()
        .any(|key| whole.get(key).is_some());
    if !is_program {
        return Ok(whole);
    }
    let mut section = match whole.get_mut("inject").map(Value::take) {
        None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
        Some(section) => section,
    };
    // What the injector's program adds to the rules from its own keys.
    for (from, to) in [
        ("strict", "strict"),
        ("namespace", "ownNamespace"),
        ("exclude_namespaces", "excludedNamespaces"),
    ] {
        if let (Some(value), Some(section)) = (whole.get(from), section.as_object_mut()) {
            section.entry(to).or_insert_with(|| value.clone());
        }
    }
    Ok(section)
}
