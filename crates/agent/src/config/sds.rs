//! The block `sds`.

use std::{collections::BTreeMap, sync::Arc};

use runtime::config::Section;

use super::SdsConfig;
use crate::sds::AllowList;

/// Reads what the block `agent` says of SDS; a list that cannot be read is told, and left out.
pub(super) fn read(agent: &mut Section) -> SdsConfig {
    let disabled: Option<bool> = agent.get("disable_sds_api");
    let mut sds = agent.section("sds");
    let default = SdsConfig::default();
    let mut config = SdsConfig {
        enabled: !disabled.unwrap_or(false),
        default_svid_name: sds
            .get("default_svid_name")
            .unwrap_or(default.default_svid_name),
        default_bundle_name: sds
            .get("default_bundle_name")
            .unwrap_or(default.default_bundle_name),
        default_all_bundles_name: sds
            .get("default_all_bundles_name")
            .unwrap_or(default.default_all_bundles_name),
        disable_spiffe_cert_validation: sds
            .get("disable_spiffe_cert_validation")
            .unwrap_or(default.disable_spiffe_cert_validation),
        default_svid_hint: sds.get("default_svid_hint"),
        allow_lists: BTreeMap::new(),
        hold_max: sds.get("hold_max").unwrap_or(default.hold_max),
        authority_ack_timeout: sds
            .get("authority_ack_timeout")
            .unwrap_or(default.authority_ack_timeout),
        deny_when_revoked: sds
            .get("deny_when_revoked")
            .unwrap_or(default.deny_when_revoked),
    };
    config.allow_lists = allow_lists(&mut sds, &config);
    config
}

fn allow_lists(sds: &mut Section, config: &SdsConfig) -> BTreeMap<String, Arc<AllowList>> {
    let mut lists = BTreeMap::new();
    for (name, mut section) in sds.labelled("allow_list") {
        let ids: Vec<String> = section.get("ids").unwrap_or_default();
        if is_taken(&name, config) {
            let message =
                format_args!("{name:?} stands for something else already; give another name");
            sds.problem("allow_list", message);
            continue;
        }
        match AllowList::parse(&ids) {
            Ok(list) if lists.contains_key(&name) => {
                drop(list);
                sds.problem("allow_list", format_args!("{name:?} is there twice"));
            }
            Ok(list) => {
                lists.insert(name, Arc::new(list));
            }
            Err(error) => section.problem("ids", error),
        }
    }
    lists
}

fn is_taken(name: &str, config: &SdsConfig) -> bool {
    let configured = [
        &config.default_svid_name,
        &config.default_bundle_name,
        &config.default_all_bundles_name,
    ];
    let prefixes = ["spiffe://", "hint:", "file-root:", "file-cert:"];
    name.is_empty()
        || configured.iter().any(|one| *one == name)
        || prefixes.iter().any(|prefix| name.starts_with(prefix))
}
