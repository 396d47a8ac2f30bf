//! The filters of ListAgents and CountAgents, which are two messages with the same fields.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::spire::api::server::agent::v1::{count_agents_request, list_agents_request};
use proto::spire::api::types;
use store::AgentFilter;
use time::OffsetDateTime;
use time::format_description;

use crate::rpc::RpcError;
use crate::service::list;

pub(super) fn of_list(
    filter: Option<&list_agents_request::Filter>,
) -> Result<AgentFilter, RpcError> {
    let Some(filter) = filter else {
        return Ok(AgentFilter::default());
    };
    read(&Wire {
        attestation_type: &filter.by_attestation_type,
        selectors: filter.by_selector_match.as_ref(),
        banned: filter.by_banned,
        can_reattest: filter.by_can_reattest,
        expires_before: &filter.by_expires_before,
    })
}

pub(super) fn of_count(
    filter: Option<&count_agents_request::Filter>,
) -> Result<AgentFilter, RpcError> {
    let Some(filter) = filter else {
        return Ok(AgentFilter::default());
    };
    read(&Wire {
        attestation_type: &filter.by_attestation_type,
        selectors: filter.by_selector_match.as_ref(),
        banned: filter.by_banned,
        can_reattest: filter.by_can_reattest,
        expires_before: &filter.by_expires_before,
    })
}

struct Wire<'a> {
    attestation_type: &'a str,
    selectors: Option<&'a types::SelectorMatch>,
    banned: Option<bool>,
    can_reattest: Option<bool>,
    expires_before: &'a str,
}

fn read(wire: &Wire<'_>) -> Result<AgentFilter, RpcError> {
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Ok(AgentFilter {
        attestation_type: set(wire.attestation_type),
        selectors: wire.selectors.map(list::selectors).transpose()?,
        banned: wire.banned,
        can_reattest: wire.can_reattest,
        expires_before: set(wire.expires_before)
            .map(|text| go_time(&text))
            .transpose()?,
    })
}

/// Reads Go's `2006-01-02 15:04:05 -0700 -07`: a time with its offset, and the offset again for a zone.
fn go_time(text: &str) -> Result<SystemTime, RpcError> {
    const FORMAT: &str =
        "[year]-[month]-[day] [hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]";
    let malformed = || {
        RpcError::InvalidArgument(format!(
            "malformed filter: by_expires_before is {text:?}; write it as 2006-01-02 15:04:05 -0700 -07"
        ))
    };
    let (time, _zone) = text.rsplit_once(' ').ok_or_else(malformed)?;
    let format = format_description::parse_borrowed::<2>(FORMAT)
        .map_err(|error| RpcError::internal("internal error", error))?;
    let time = OffsetDateTime::parse(time, &format).map_err(|_| malformed())?;
    let seconds = u64::try_from(time.unix_timestamp()).unwrap_or(0);
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_go_writes_them() {
        let seconds = |text: &str| {
            let time = go_time(text).ok()?;
            Some(time.duration_since(UNIX_EPOCH).unwrap().as_secs())
        };
        assert_eq!(
            seconds("2027-01-15 08:00:00 +0000 +00"),
            Some(1_800_000_000)
        );
        assert_eq!(
            seconds("2027-01-15 03:00:00 -0500 -05"),
            Some(1_800_000_000)
        );
        assert_eq!(seconds("1960-01-15 03:00:00 -0500 -05"), Some(0));
        for text in [
            "",
            "tomorrow",
            "2027-01-15",
            "2027-01-15 08:00:00",
            "2027-13-15 08:00:00 +0000 +00",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }
}
