//! `signet server agent …`

use std::fmt::Write as _;

use anyhow::Result;
use identity::{Selector, SpiffeId};
use proto::spire::api::server::agent::v1::agent_client::AgentClient;
use proto::spire::api::server::agent::v1::{
    BanAgentRequest, CountAgentsRequest, CountAgentsResponse, DeleteAgentRequest, GetAgentRequest,
    ListAgentsRequest, ListAgentsResponse, count_agents_request, list_agents_request,
};
use proto::spire::api::types;

use crate::client::{MAX_ANSWER, Match, PAGE, id_text, refused, wire_id};
use crate::output::{Output, Report, counted, moment};
use crate::socket::ServerSocket;

/// Attested agents.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// List the attested agents
    List(Box<Many>),
    /// Count the attested agents
    Count(Box<Many>),
    /// Show one agent
    Show(One),
    /// Refuse an agent until it is evicted
    Ban(One),
    /// Forget an agent, so that it must attest anew
    Evict(One),
}

/// Which agents: all conditions must hold.
#[derive(clap::Args, Debug)]
struct Filter {
    /// A selector of the agents, `type:value`; may be given again
    #[arg(long = "selector", value_name = "SELECTOR")]
    selectors: Vec<Selector>,
    /// How the agents' selectors compare with the given ones
    #[arg(
        long = "matchSelectorsOn",
        value_name = "HOW",
        value_enum,
        default_value = "superset"
    )]
    match_selectors: Match,
    /// How the agents attested, such as `join_token`
    #[arg(long = "attestationType", value_name = "TYPE")]
    attestation_type: Option<String>,
    /// Whether the agents can attest anew by themselves
    #[arg(long = "canReattest", value_name = "BOOL")]
    can_reattest: Option<bool>,
    /// Whether the agents are banned
    #[arg(long = "banned", value_name = "BOOL")]
    banned: Option<bool>,
    /// A time before which the agents' SVIDs expire, such as `2026-01-02 15:04:05 -0700 -07`
    #[arg(long = "expiresBefore", value_name = "TIME")]
    expires_before: Option<String>,
}

/// `agent list`, `agent count`
#[derive(clap::Args, Debug)]
pub(crate) struct Many {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

/// `agent show`, `agent ban`, `agent evict`
#[derive(clap::Args, Debug)]
pub(crate) struct One {
    /// The agent's SPIFFE ID
    #[arg(long = "spiffeID", value_name = "ID", required = true)]
    spiffe_id: SpiffeId,
    #[command(flatten)]
    socket: ServerSocket,
    #[command(flatten)]
    output: Output,
}

impl Command {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::List(many) => many.list().await,
            Self::Count(many) => many.count().await,
            Self::Show(one) => one.show().await,
            Self::Ban(one) => one.ban().await,
            Self::Evict(one) => one.evict().await,
        }
    }
}

impl Many {
    async fn list(self) -> Result<()> {
        let channel = self.socket.connect().await?;
        let mut client = AgentClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let mut request = ListAgentsRequest {
            filter: Some(self.filter.listing()),
            // Selectors cost the server a query, and are not shown in a list.
            output_mask: Some(without_selectors()),
            page_size: i32::try_from(PAGE).unwrap_or(i32::MAX),
            page_token: String::new(),
        };
        let mut list = ListAgentsResponse::default();
        loop {
            let page = client.list_agents(request.clone()).await;
            let page = page.map_err(|status| refused(&status))?.into_inner();
            list.agents.extend(page.agents);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        self.output.print(&list, listed)
    }

    async fn count(self) -> Result<()> {
        let list_agents_request::Filter {
            by_attestation_type,
            by_selector_match,
            by_banned,
            by_can_reattest,
            by_expires_before,
        } = self.filter.listing();
        let filter = count_agents_request::Filter {
            by_attestation_type,
            by_selector_match,
            by_banned,
            by_can_reattest,
            by_expires_before,
        };
        let request = CountAgentsRequest {
            filter: Some(filter),
        };
        let count = AgentClient::new(self.socket.connect().await?)
            .count_agents(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        self.output.print(&count, numbered)
    }
}

impl One {
    async fn show(self) -> Result<()> {
        let request = GetAgentRequest {
            id: Some(wire_id(&self.spiffe_id)),
            output_mask: None,
        };
        let agent = AgentClient::new(self.socket.connect().await?)
            .get_agent(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        self.output.print(&agent, shown)
    }

    async fn ban(self) -> Result<()> {
        let request = BanAgentRequest {
            id: Some(wire_id(&self.spiffe_id)),
        };
        let banned = AgentClient::new(self.socket.connect().await?)
            .ban_agent(request)
            .await;
        banned.map_err(|status| refused(&status))?;
        self.done("Agent banned successfully")
    }

    async fn evict(self) -> Result<()> {
        let request = DeleteAgentRequest {
            id: Some(wire_id(&self.spiffe_id)),
        };
        let evicted = AgentClient::new(self.socket.connect().await?)
            .delete_agent(request)
            .await;
        evicted.map_err(|status| refused(&status))?;
        self.done("Agent evicted successfully")
    }

    /// The answer is an empty message: `{}` in JSON.
    fn done(&self, text: &str) -> Result<()> {
        let nothing = serde_json::Map::new();
        self.output
            .print_value(&nothing, || format!("{text}\n").into())
    }
}

impl Filter {
    fn listing(&self) -> list_agents_request::Filter {
        list_agents_request::Filter {
            by_attestation_type: self.attestation_type.clone().unwrap_or_default(),
            by_selector_match: self.match_selectors.selectors(&self.selectors),
            by_banned: self.banned,
            by_can_reattest: self.can_reattest,
            by_expires_before: self.expires_before.clone().unwrap_or_default(),
        }
    }
}

const fn without_selectors() -> types::AgentMask {
    types::AgentMask {
        attestation_type: true,
        x509svid_serial_number: true,
        x509svid_expires_at: true,
        selectors: false,
        banned: true,
        can_reattest: true,
        agent_version: true,
    }
}

fn listed(list: &ListAgentsResponse) -> Report {
    if list.agents.is_empty() {
        return "No attested agents found\n".to_owned().into();
    }
    let count = i64::try_from(list.agents.len()).unwrap_or(i64::MAX);
    let count = counted(count, "attested agent", "attested agents");
    let agents: String = list.agents.iter().map(one).collect();
    format!("Found {count}:\n\n{agents}").into()
}

fn numbered(count: &CountAgentsResponse) -> Report {
    let count = counted(count.count.into(), "attested agent", "attested agents");
    format!("{count}\n").into()
}

fn shown(agent: &types::Agent) -> Report {
    let mut text = format!(
        "Found an attested agent given its SPIFFE ID\n\n{}",
        one(agent)
    );
    for selector in &agent.selectors {
        let (kind, value) = (&selector.r#type, &selector.value);
        let _ = writeln!(text, "{:<18}: {kind}:{value}", "Selectors");
    }
    text.into()
}

fn one(agent: &types::Agent) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{label:<18}: {value}");
    };
    line("SPIFFE ID", &id_text(agent.id.as_ref()));
    line("Attestation type", &agent.attestation_type);
    line("Expiration time", &moment(agent.x509svid_expires_at));
    if agent.banned {
        line("Banned", &true);
    } else {
        line("Serial number", &agent.x509svid_serial_number);
    }
    line("Can re-attest", &agent.can_reattest);
    line("Agent version", &agent.agent_version);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::output::json;

    fn agents() -> ListAgentsResponse {
        let agent = |path: &str| types::Agent {
            id: Some(types::Spiffeid {
                trust_domain: "example.org".into(),
                path: path.into(),
            }),
            attestation_type: "join_token".into(),
            x509svid_serial_number: "123456789012345678901234567890".into(),
            x509svid_expires_at: 1_900_000_000,
            agent_version: "0.1.0".into(),
            ..Default::default()
        };
        let banned = types::Agent {
            banned: true,
            x509svid_serial_number: String::new(),
            ..agent("/spire/agent/join_token/b")
        };
        ListAgentsResponse {
            agents: vec![agent("/spire/agent/join_token/a"), banned],
            next_page_token: String::new(),
        }
    }

    #[test]
    fn agents_are_printed_as_spire_prints_them() {
        assert_snapshot!(listed(&agents()).out);
        assert_snapshot!(json(&agents()).unwrap());
        let none = ListAgentsResponse::default();
        assert_snapshot!(listed(&none).out, @"No attested agents found");
        assert_snapshot!(numbered(&CountAgentsResponse { count: 1 }).out, @"1 attested agent");
        let mut agent = agents().agents.swap_remove(0);
        agent.selectors.push(types::Selector {
            r#type: "join_token".into(),
            value: "a:b".into(),
        });
        assert_snapshot!(shown(&agent).out);
    }
}
