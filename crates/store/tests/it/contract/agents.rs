use identity::EntryId;
use store::{Agent, AgentError, AgentFilter, AttestError, EntryFilter, Match, Page, Store};

use crate::support::{NOW, agent, at, create, entry, id, selectors, svid};

pub(crate) async fn every_field_comes_back(store: Store) {
    let plain = agent("/spire/agent/a", &[]);
    let full = Agent {
        attestation_type: "k8s_psat".to_owned(),
        renewed: Some(svid("99999999999999999999999999999999999999", NOW + 7200)),
        can_reattest: false,
        version: "1.2.3".to_owned(),
        ..agent(
            "/spire/agent/b",
            &["k8s_psat:cluster:x", "k8s_psat:agent_ns:y"],
        )
    };
    store.attest_agent(plain.clone()).await.unwrap();
    store.attest_agent(full.clone()).await.unwrap();
    assert_eq!(store.agent(&plain.id).await.unwrap(), Some(plain.clone()));
    assert_eq!(store.agent(&full.id).await.unwrap(), Some(full.clone()));
    assert_eq!(store.snapshot().await.unwrap().agents, [plain, full]);
}

pub(crate) async fn s_3_either_serial_is_good_until_the_new_one_is_used(store: Store) {
    let before = agent("/spire/agent/a", &["x:1"]);
    store.attest_agent(before.clone()).await.unwrap();
    store
        .renew_agent(&before.id, "1", svid("2", NOW + 9))
        .await
        .unwrap();
    let renewed = store.agent(&before.id).await.unwrap().unwrap();
    assert_eq!(
        (renewed.svid.serial.as_str(), renewed.renewed),
        ("1", Some(svid("2", NOW + 9)))
    );
    // The agent never got the answer and asks again: the later renewal counts.
    store
        .renew_agent(&before.id, "1", svid("3", NOW + 10))
        .await
        .unwrap();
    assert_eq!(
        store.activate_agent_svid(&before.id, "2").await,
        Err(AgentError::NotFound)
    );
    store.activate_agent_svid(&before.id, "3").await.unwrap();
    store.activate_agent_svid(&before.id, "3").await.unwrap();
    let after = store.agent(&before.id).await.unwrap().unwrap();
    assert_eq!((after.svid, after.renewed), (svid("3", NOW + 10), None));
    assert_eq!(after.selectors, selectors(&["x:1"]));
    assert_eq!(
        store.activate_agent_svid(&before.id, "1").await,
        Err(AgentError::NotFound)
    );
}

pub(crate) async fn a_renewal_needs_the_serial_in_use(store: Store) {
    store
        .attest_agent(agent("/spire/agent/a", &[]))
        .await
        .unwrap();
    let outcome = store
        .renew_agent(&id("/spire/agent/a"), "0", svid("2", NOW))
        .await;
    assert_eq!(outcome, Err(AgentError::NotFound));
}

pub(crate) async fn a_banned_agent_stays_and_cannot_return(store: Store) {
    let agent = agent("/spire/agent/a", &["x:1"]);
    store.attest_agent(agent.clone()).await.unwrap();
    store
        .renew_agent(&agent.id, "1", svid("2", NOW))
        .await
        .unwrap();
    store.ban_agent(&agent.id).await.unwrap();
    let banned = store.agent(&agent.id).await.unwrap().unwrap();
    assert!(banned.banned && banned.svid.serial.is_empty() && banned.renewed.is_none());
    assert_eq!(
        store.attest_agent(agent.clone()).await,
        Err(AttestError::Banned(agent.id.clone()))
    );
    assert_eq!(
        store.renew_agent(&agent.id, "", svid("3", NOW)).await,
        Err(AgentError::NotFound)
    );
    assert_eq!(
        store.activate_agent_svid(&agent.id, "").await,
        Err(AgentError::NotFound)
    );
    store.delete_agent(&agent.id).await.unwrap();
    store.attest_agent(agent).await.unwrap();
}

pub(crate) async fn a_second_attestation_replaces_the_first(store: Store) {
    let first = agent("/spire/agent/a", &["x:1", "x:2"]);
    store.attest_agent(first.clone()).await.unwrap();
    store.set_agent_version(&first.id, "1.0").await.unwrap();
    store
        .renew_agent(&first.id, "1", svid("2", NOW))
        .await
        .unwrap();
    let second = Agent {
        svid: svid("7", NOW + 1),
        ..agent("/spire/agent/a", &["x:2", "x:3"])
    };
    store.attest_agent(second.clone()).await.unwrap();
    let expected = Agent {
        version: "1.0".to_owned(),
        ..second
    };
    assert_eq!(store.agent(&first.id).await.unwrap(), Some(expected));
    let by = async |text| {
        let filter = AgentFilter {
            selectors: Some((Match::Superset, selectors(&[text]))),
            ..AgentFilter::default()
        };
        store.count_agents(&filter).await.unwrap()
    };
    assert_eq!(
        [by("x:1").await, by("x:2").await, by("x:3").await],
        [0, 1, 1]
    );
}

pub(crate) async fn s_23_eviction_takes_the_tokens_alias_along(store: Store) {
    let agent = agent("/spire/agent/join_token/t", &[]);
    let own = format!("spiffe_id:{}", agent.id);
    let mut alias = entry("alias", "/node", &[&own]);
    alias.parent_id = agent.id.clone();
    let mut workload = entry("workload", "/w", &["unix:uid:1"]);
    workload.parent_id = agent.id.clone();
    store.attest_agent(agent.clone()).await.unwrap();
    create(&store, alias.clone()).await;
    create(&store, workload.clone()).await;
    store.delete_agent(&agent.id).await.unwrap();
    assert_eq!(store.entry(&alias.id).await.unwrap(), None);
    assert_eq!(store.entry(&workload.id).await.unwrap(), Some(workload));
    assert_eq!(store.agent(&agent.id).await.unwrap(), None);
}

#[expect(clippy::too_many_lines, reason = "a table, a row per field")]
pub(crate) async fn lists_filter_by_each_field(store: Store) {
    let mut a = agent("/a", &["s:1"]);
    a.svid.expires_at = at(NOW - 5);
    let b = agent("/b", &["s:1", "s:2"]);
    let mut c = agent("/c", &["s:2"]);
    c.attestation_type = "join_token".to_owned();
    c.can_reattest = false;
    for agent in [a, b, c] {
        store.attest_agent(agent).await.unwrap();
    }
    store.ban_agent(&id("/b")).await.unwrap();
    let listed = async |filter: AgentFilter| {
        let listing = store.list_agents(&filter, Page::default()).await.unwrap();
        assert_eq!(
            store.count_agents(&filter).await.unwrap(),
            listing.items.len() as u64
        );
        listing
            .items
            .iter()
            .map(|agent| agent.id.path().to_owned())
            .collect::<Vec<_>>()
    };
    let all = AgentFilter::default;
    assert_eq!(listed(all()).await, ["/a", "/b", "/c"]);
    assert_eq!(
        listed(AgentFilter {
            attestation_type: Some("x509pop".to_owned()),
            ..all()
        })
        .await,
        ["/a", "/b"]
    );
    assert_eq!(
        listed(AgentFilter {
            banned: Some(true),
            ..all()
        })
        .await,
        ["/b"]
    );
    assert_eq!(
        listed(AgentFilter {
            banned: Some(false),
            ..all()
        })
        .await,
        ["/a", "/c"]
    );
    assert_eq!(
        listed(AgentFilter {
            can_reattest: Some(false),
            ..all()
        })
        .await,
        ["/c"]
    );
    assert_eq!(
        listed(AgentFilter {
            expires_before: Some(at(NOW)),
            ..all()
        })
        .await,
        ["/a"]
    );
    let subset = AgentFilter {
        selectors: Some((Match::Subset, selectors(&["s:1"]))),
        ..all()
    };
    assert_eq!(listed(subset).await, ["/a"]);
    let page = Page {
        after: 0,
        limit: Some(2),
    };
    let listing = store.list_agents(&all(), page).await.unwrap();
    assert_eq!(listing.items.len(), 2);
    let page = Page {
        after: listing.next.unwrap(),
        limit: Some(2),
    };
    assert_eq!(
        store.list_agents(&all(), page).await.unwrap().items.len(),
        1
    );
}

pub(crate) async fn pruning_spares_the_banned(store: Store) {
    for path in ["/old", "/banned", "/once", "/fresh"] {
        let mut agent = agent(path, &["s:1"]);
        agent.can_reattest = path != "/once";
        agent.svid.expires_at = at(if path == "/fresh" { NOW } else { NOW - 1 });
        store.attest_agent(agent).await.unwrap();
    }
    store.ban_agent(&id("/banned")).await.unwrap();
    assert_eq!(
        store.prune_agents(at(NOW), false, 10).await.unwrap(),
        [id("/old")]
    );
    assert_eq!(
        store.prune_agents(at(NOW), true, 10).await.unwrap(),
        [id("/once")]
    );
    assert_eq!(
        store.count_agents(&AgentFilter::default()).await.unwrap(),
        2
    );
}

pub(crate) async fn pruning_keeps_to_its_limit(store: Store) {
    for path in ["/a", "/b", "/c"] {
        let mut agent = agent(path, &["s:1"]);
        agent.svid.expires_at = at(NOW - 1);
        store.attest_agent(agent).await.unwrap();
    }
    let prune = async || store.prune_agents(at(NOW), false, 2).await.unwrap();
    assert_eq!(prune().await, [id("/a"), id("/b")]);
    assert_eq!(prune().await, [id("/c")]);
    assert!(prune().await.is_empty());
}

/// Whoever finds out an agent's ID may not take it over by another attestor.
pub(crate) async fn an_agent_stays_with_its_attestor(store: Store) {
    let first = agent("/a", &["s:1"]);
    store.attest_agent(first.clone()).await.unwrap();
    let mut other = agent("/a", &["s:2"]);
    other.attestation_type = "join_token".to_owned();
    assert_eq!(
        store.attest_agent(other.clone()).await,
        Err(AttestError::OtherAttestor {
            id: other.id.clone(),
            known: "x509pop".to_owned(),
        })
    );
    assert_eq!(store.agent(&first.id).await, Ok(Some(first.clone())));
    store.delete_agent(&first.id).await.unwrap();
    store.attest_agent(other).await.unwrap();
}

pub(crate) async fn what_is_not_there_is_told(store: Store) {
    let nobody = id("/nobody");
    assert_eq!(store.agent(&nobody).await.unwrap(), None);
    assert_eq!(store.ban_agent(&nobody).await, Err(AgentError::NotFound));
    assert_eq!(store.delete_agent(&nobody).await, Err(AgentError::NotFound));
    assert_eq!(
        store.set_agent_version(&nobody, "1").await,
        Err(AgentError::NotFound)
    );
    assert_eq!(
        store.activate_agent_svid(&nobody, "1").await,
        Err(AgentError::NotFound)
    );
    assert_eq!(
        store.entry(&EntryId::new("x").unwrap()).await.unwrap(),
        None
    );
    assert_eq!(
        store.count_entries(&EntryFilter::default()).await.unwrap(),
        0
    );
}
