//! Entries for people, line by line as SPIRE prints them.

use std::fmt::Write as _;

use proto::spire::api::server::entry::v1::{
    BatchCreateEntryResponse, BatchDeleteEntryResponse, BatchUpdateEntryResponse,
    CountEntriesResponse, ListEntriesResponse,
};
use proto::spire::api::types;
use tonic::Code;

use crate::client::{code_name, id_text};
use crate::output::{Report, counted, moment};

pub(super) fn listed(list: &ListEntriesResponse) -> Report {
    let count = i64::try_from(list.entries.len()).unwrap_or(i64::MAX);
    let mut text = format!("Found {}\n", counted(count, "entry", "entries"));
    for entry in &list.entries {
        text.push_str(&one(entry));
    }
    text.into()
}

pub(super) fn numbered(count: &CountEntriesResponse) -> Report {
    let text = counted(
        count.count.into(),
        "registration entry",
        "registration entries",
    );
    format!("{text}\n").into()
}

pub(super) fn created(answer: &BatchCreateEntryResponse) -> Report {
    let results = answer.results.iter();
    changed(
        "create",
        results.map(|result| (result.status.as_ref(), result.entry.as_ref())),
    )
}

pub(super) fn updated(answer: &BatchUpdateEntryResponse) -> Report {
    let results = answer.results.iter();
    changed(
        "update",
        results.map(|result| (result.status.as_ref(), result.entry.as_ref())),
    )
}

pub(super) fn deleted(answer: &BatchDeleteEntryResponse) -> Report {
    let mut report = Report::default();
    for result in &answer.results {
        let (status, id) = (result.status.as_ref(), &result.id);
        if succeeded(status) {
            let _ = writeln!(report.out, "Deleted entry with ID: {id}");
        } else {
            let why = reason(status);
            let _ = writeln!(report.err, "Failed to delete entry with ID {id} ({why})");
        }
    }
    report
}

/// Whether an item went well. Some servers leave the status of such an item unset.
pub(super) fn succeeded(status: Option<&types::Status>) -> bool {
    status.is_none_or(|status| status.code == i32::from(Code::Ok))
}

fn changed<'a>(
    verb: &str,
    results: impl Iterator<Item = (Option<&'a types::Status>, Option<&'a types::Entry>)>,
) -> Report {
    let mut report = Report::default();
    for (status, entry) in results {
        let entry = entry.map(one).unwrap_or_default();
        if succeeded(status) {
            report.out.push_str(&entry);
        } else {
            let why = reason(status);
            let _ = write!(
                report.err,
                "Failed to {verb} the following entry ({why}):\n{entry}"
            );
        }
    }
    report
}

fn reason(status: Option<&types::Status>) -> String {
    let status = status.cloned().unwrap_or_default();
    format!(
        "code: {}, msg: {:?}",
        code_name(status.code),
        status.message
    )
}

fn one(entry: &types::Entry) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{label:<24}: {value}");
    };
    let id = if entry.id.is_empty() {
        "(none)"
    } else {
        &entry.id
    };
    line("Entry ID", &id);
    line("SPIFFE ID", &id_text(entry.spiffe_id.as_ref()));
    line("Parent ID", &id_text(entry.parent_id.as_ref()));
    line("Revision", &entry.revision_number);
    if entry.downstream {
        line("Downstream", &true);
    }
    line("X509-SVID TTL", &ttl(entry.x509_svid_ttl));
    line("JWT-SVID TTL", &ttl(entry.jwt_svid_ttl));
    if entry.expires_at != 0 {
        line("Expiration time", &moment(entry.expires_at));
    }
    for selector in &entry.selectors {
        line(
            "Selector",
            &format!("{}:{}", selector.r#type, selector.value),
        );
    }
    for trust_domain in &entry.federates_with {
        line("FederatesWith", trust_domain);
    }
    for name in &entry.dns_names {
        line("DNS name", name);
    }
    if entry.admin {
        line("Admin", &true);
    }
    if entry.store_svid {
        line("StoreSvid", &true);
    }
    if !entry.hint.is_empty() {
        line("Hint", &entry.hint);
    }
    let attributes = entry.additional_attributes.unwrap_or_default();
    if attributes.disable_x509_svid_prefetch {
        line("X509-SVID prefetch", &"disabled");
    }
    if attributes.jwt_svid_include_jti {
        line("JWT-SVID includes JTI", &true);
    }
    text.push('\n');
    text
}

fn ttl(seconds: i32) -> String {
    match seconds {
        0 => "default".to_owned(),
        seconds => seconds.to_string(),
    }
}
