//! spire.api.server.entry.v1 over the wire.

use futures_util::StreamExt as _;
use identity::Bundle;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, CountEntriesRequest,
    GetAuthorizedEntriesRequest, GetEntryRequest, ListEntriesRequest, SyncAuthorizedEntriesRequest,
    list_entries_request,
};
use proto::spire::api::types;
use testkit::TestServer;
use tonic::Code;
use tonic::transport::Channel;

type Client = EntryClient<Channel>;

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid {
        trust_domain: "example.org".to_owned(),
        path: path.to_owned(),
    })
}

fn selector(value: &str) -> types::Selector {
    types::Selector {
        r#type: "unix".to_owned(),
        value: value.to_owned(),
    }
}

fn entry(parent: &str, path: &str, uid: u32) -> types::Entry {
    types::Entry {
        spiffe_id: id(path),
        parent_id: id(parent),
        selectors: vec![selector(&format!("uid:{uid}"))],
        ..types::Entry::default()
    }
}

async fn create(
    client: &mut Client,
    entries: Vec<types::Entry>,
) -> Vec<(Code, Option<types::Entry>)> {
    let request = BatchCreateEntryRequest {
        entries,
        output_mask: None,
    };
    let results = client
        .batch_create_entry(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    results
        .into_iter()
        .map(|result| (result.status.unwrap().code.into(), result.entry))
        .collect()
}

async fn created(client: &mut Client, entry: types::Entry) -> types::Entry {
    let mut results = create(client, vec![entry]).await;
    let (code, entry) = results.remove(0);
    assert_eq!(code, Code::Ok);
    entry.unwrap()
}

#[tokio::test]
async fn s_18_every_field_comes_back_and_each_mask_shows_its_own() {
    let server = TestServer::start().await;
    let mut client = EntryClient::new(server.local());
    let wanted = types::Entry {
        id: "chosen".to_owned(),
        selectors: vec![selector("gid:1"), selector("uid:1")],
        x509_svid_ttl: 60,
        jwt_svid_ttl: 61,
        admin: true,
        expires_at: 4_000_000_000,
        dns_names: vec!["b.test".to_owned(), "a.test".to_owned()],
        hint: "hint".to_owned(),
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: true,
        }),
        ..entry("/agent", "/web", 1)
    };
    let made = created(&mut client, wanted.clone()).await;
    let expected = types::Entry {
        created_at: made.created_at,
        ..wanted
    };
    assert_eq!(made, expected);
    assert!(made.created_at > 1_700_000_000);

    let get = |mask| GetEntryRequest {
        id: "chosen".to_owned(),
        output_mask: mask,
    };
    let nothing = client
        .get_entry(get(Some(types::EntryMask::default())))
        .await
        .unwrap()
        .into_inner();
    let bare = types::Entry {
        id: "chosen".to_owned(),
        ..types::Entry::default()
    };
    assert_eq!(nothing, bare);
    let mask = types::EntryMask {
        admin: true,
        downstream: true,
        ..types::EntryMask::default()
    };
    let flags = client
        .get_entry(get(Some(mask)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        flags,
        types::Entry {
            admin: true,
            ..bare
        }
    );
}

#[tokio::test]
async fn a_batch_answers_each_item_in_its_place() {
    let server = TestServer::start().await;
    let mut client = EntryClient::new(server.local());
    let first = created(&mut client, entry("/agent", "/a", 1)).await;
    let foreign = types::Entry {
        spiffe_id: Some(types::Spiffeid {
            trust_domain: "other.org".to_owned(),
            path: "/x".to_owned(),
        }),
        ..entry("/agent", "/x", 1)
    };
    let federated = types::Entry {
        federates_with: vec!["unknown.org".to_owned()],
        ..entry("/agent", "/f", 1)
    };
    let results = create(
        &mut client,
        vec![
            foreign,
            entry("/agent", "/b", 2),
            entry("/agent", "/a", 1),
            entry("/agent", "/spire/agent/evil", 3),
            federated,
            types::Entry::default(),
            entry("/agent", "/b", 2),
        ],
    )
    .await;
    let codes: Vec<Code> = results.iter().map(|(code, _)| *code).collect();
    use Code::{AlreadyExists, InvalidArgument, Ok};
    let expected = [
        InvalidArgument,
        Ok,
        AlreadyExists,
        InvalidArgument,
        InvalidArgument,
        InvalidArgument,
        AlreadyExists,
    ];
    assert_eq!(codes, expected);
    assert_eq!(
        results[2].1.as_ref(),
        Some(&first),
        "the existing entry comes along"
    );
    assert_eq!(results[6].1, results[1].1);
}

#[tokio::test]
async fn updates_follow_their_mask() {
    let server = TestServer::start().await;
    let mut client = EntryClient::new(server.local());
    let made = created(
        &mut client,
        types::Entry {
            hint: "old".to_owned(),
            admin: true,
            ..entry("/agent", "/a", 1)
        },
    )
    .await;
    let mut update = async |entry: types::Entry, input_mask| {
        let request = BatchUpdateEntryRequest {
            entries: vec![entry],
            input_mask,
            output_mask: None,
        };
        let mut results = client
            .batch_update_entry(request)
            .await
            .unwrap()
            .into_inner()
            .results;
        let result = results.remove(0);
        (Code::from(result.status.unwrap().code), result.entry)
    };
    let hint = types::EntryMask {
        hint: true,
        ..types::EntryMask::default()
    };
    let wanted = types::Entry {
        id: made.id.clone(),
        hint: "new".to_owned(),
        ..types::Entry::default()
    };
    let (code, updated) = update(wanted.clone(), Some(hint)).await;
    let expected = types::Entry {
        hint: "new".to_owned(),
        revision_number: 1,
        ..made.clone()
    };
    assert_eq!((code, updated), (Code::Ok, Some(expected)));
    // Without a mask all is replaced, and what must be there is missed.
    assert_eq!(update(wanted, None).await.0, Code::InvalidArgument);
    let whole = types::Entry {
        id: made.id.clone(),
        ..entry("/agent", "/b", 1)
    };
    let (code, updated) = update(whole.clone(), None).await;
    let expected = types::Entry {
        revision_number: 2,
        created_at: made.created_at,
        ..whole.clone()
    };
    assert_eq!((code, updated), (Code::Ok, Some(expected)));
    let reserved = types::Entry {
        spiffe_id: id("/spire/server"),
        ..whole.clone()
    };
    assert_eq!(update(reserved, None).await.0, Code::InvalidArgument);
    let gone = types::Entry {
        id: "gone".to_owned(),
        ..whole
    };
    assert_eq!(update(gone, None).await.0, Code::NotFound);
    assert_eq!(
        update(types::Entry::default(), None).await.0,
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn lists_page_and_filter_and_refuse_what_is_malformed() {
    let server = TestServer::start().await;
    let mut client = EntryClient::new(server.local());
    for number in 0..5 {
        created(&mut client, entry("/agent", &format!("/w{number}"), number)).await;
    }
    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let request = ListEntriesRequest {
            page_size: 2,
            page_token: token,
            ..ListEntriesRequest::default()
        };
        let answer = client.list_entries(request).await.unwrap().into_inner();
        pages.push(answer.entries.len());
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [2, 2, 1, 0], "a page with entries has a successor");
    let filtered = |filter| ListEntriesRequest {
        filter: Some(filter),
        ..ListEntriesRequest::default()
    };
    let by_selector = |how, selectors: Vec<types::Selector>| list_entries_request::Filter {
        by_selectors: Some(types::SelectorMatch {
            selectors,
            r#match: how,
        }),
        ..list_entries_request::Filter::default()
    };
    let any = by_selector(3, vec![selector("uid:1"), selector("uid:3")]);
    let found = client
        .list_entries(filtered(any))
        .await
        .unwrap()
        .into_inner()
        .entries;
    assert_eq!(found.len(), 2);
    for malformed in [
        by_selector(4, vec![selector("uid:1")]),
        by_selector(0, vec![]),
        by_selector(0, vec![selector("")]),
    ] {
        let status = client.list_entries(filtered(malformed)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let request = ListEntriesRequest {
        page_token: "nonsense".to_owned(),
        ..ListEntriesRequest::default()
    };
    assert_eq!(
        client.list_entries(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let count = client
        .count_entries(CountEntriesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .count;
    assert_eq!(count, 5);
}

#[tokio::test]
async fn deletions_answer_each_item() {
    let server = TestServer::start().await;
    let mut client = EntryClient::new(server.local());
    let made = created(&mut client, entry("/agent", "/a", 1)).await;
    let ids = vec![
        "none".to_owned(),
        made.id.clone(),
        String::new(),
        "b/d".to_owned(),
        made.id.clone(),
    ];
    let request = BatchDeleteEntryRequest { ids: ids.clone() };
    let results = client
        .batch_delete_entry(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let codes: Vec<Code> = results
        .iter()
        .map(|result| result.status.as_ref().unwrap().code.into())
        .collect();
    use Code::{InvalidArgument, NotFound, Ok};
    assert_eq!(codes, [NotFound, Ok, InvalidArgument, NotFound, NotFound]);
    assert!(results.iter().map(|result| &result.id).eq(&ids));
    let request = GetEntryRequest {
        id: made.id,
        output_mask: None,
    };
    assert_eq!(
        client.get_entry(request).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        client
            .get_entry(GetEntryRequest::default())
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
}

/// The hint of each entry the agent is told, by SyncAuthorizedEntries, asking for all that it hears of.
async fn synced(agent: &mut Client) -> (Vec<String>, usize) {
    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    requests
        .send(SyncAuthorizedEntriesRequest::default())
        .await
        .unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = agent
        .sync_authorized_entries(stream)
        .await
        .unwrap()
        .into_inner();
    let (mut ids, mut entries, mut messages) = (Vec::new(), Vec::new(), 0);
    let mut asked = false;
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        messages += 1;
        ids.extend(
            answer
                .entry_revisions
                .into_iter()
                .map(|revision| revision.id),
        );
        entries.extend(
            answer
                .entries
                .into_iter()
                .map(|entry| entry.spiffe_id.unwrap().path),
        );
        match (answer.more, ids.is_empty() || asked) {
            (true, _) => {}
            (false, true) => break,
            (false, false) => {
                asked = true;
                let request = SyncAuthorizedEntriesRequest {
                    output_mask: None,
                    ids: ids.clone(),
                };
                requests.send(request).await.unwrap();
            }
        }
    }
    drop(requests);
    assert!(
        answers.next().await.is_none(),
        "the stream ends with the agent's half"
    );
    entries.sort_unstable();
    (entries, messages)
}

#[tokio::test]
async fn an_agent_is_told_its_entries_at_once_and_no_others() {
    let server = TestServer::start().await;
    let mut operator = EntryClient::new(server.local());
    let svid = server.attest().await;
    let own = svid.id().path().to_owned();
    let mut agent = EntryClient::new(server.remote(Some(svid)).await);
    assert_eq!(
        synced(&mut agent).await,
        (vec![], 1),
        "one message, though it is empty"
    );
    created(&mut operator, entry(&own, "/mine", 1)).await;
    created(&mut operator, entry("/mine", "/below", 2)).await;
    created(
        &mut operator,
        entry("/spire/agent/join_token/other", "/other", 3),
    )
    .await;
    assert_eq!(synced(&mut agent).await.0, ["/below", "/mine"]);
    let all = agent
        .get_authorized_entries(GetAuthorizedEntriesRequest::default())
        .await
        .unwrap();
    assert_eq!(all.into_inner().entries.len(), 2);

    let many = (0..1200)
        .map(|number| entry(&own, &format!("/many/{number}"), number))
        .collect();
    assert!(
        create(&mut operator, many)
            .await
            .iter()
            .all(|(code, _)| *code == Code::Ok)
    );
    let (entries, messages) = synced(&mut agent).await;
    assert_eq!(
        (entries.len(), messages),
        (1202, 6),
        "three pages of revisions, three of entries"
    );
}

#[tokio::test]
async fn an_entry_federates_once_the_bundle_is_there() {
    let server = TestServer::start().await;
    let folder = server.stop().await;
    let path = folder.path().join("data/datastore.sqlite3");
    let (store, writing) = store::Store::open(&path).await.unwrap();
    let other = identity::TrustDomain::new("other.org").unwrap();
    let create = async {
        store.create_bundle(Bundle::empty(other)).await.unwrap();
        store.close().await;
    };
    tokio::join!(create, writing);
    let server = TestServer::start_in(folder, |_| {}).await;
    let mut client = EntryClient::new(server.local());
    let federated = types::Entry {
        federates_with: vec!["other.org".to_owned()],
        ..entry("/agent", "/f", 1)
    };
    let made = created(&mut client, federated).await;
    assert_eq!(made.federates_with, ["other.org"]);
}
