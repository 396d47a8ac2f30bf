//! `spire.api.server.svid.v1` as agents and operators call it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{
    BundleSet, Certificate, JwtSvid, KeyType, PrivateKey, SpiffeId, X509Svid, check_leaf,
    verify_x509_svid,
};
use proto::convert;
use proto::spire::api::server::entry::v1::BatchCreateEntryRequest;
use proto::spire::api::server::entry::v1::entry_client::EntryClient;
use proto::spire::api::server::svid::v1::batch_new_x509svid_response::Result as BatchResult;
use proto::spire::api::server::svid::v1::svid_client::SvidClient;
use proto::spire::api::server::svid::v1::{
    BatchNewWitsvidRequest, BatchNewX509svidRequest, MintJwtsvidRequest, MintWitsvidRequest,
    MintX509svidRequest, NewJwtsvidRequest, NewX509svidParams,
};
use proto::spire::api::types;
use testkit::TestServer;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A server with one attested agent.
struct House {
    server: TestServer,
    agent: X509Svid,
    svids: SvidClient<Channel>,
}

impl House {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let agent = server.attest().await;
        let svids = SvidClient::new(server.remote(Some(agent.clone())).await);
        Self {
            server,
            agent,
            svids,
        }
    }

    /// An entry of this agent.
    fn entry(&self, path: &str) -> types::Entry {
        types::Entry {
            spiffe_id: Some((&self.server.id(path)).into()),
            parent_id: Some(self.agent.id().into()),
            selectors: vec![types::Selector {
                r#type: "unix".to_owned(),
                value: "uid:1000".to_owned(),
            }],
            ..types::Entry::default()
        }
    }

    /// Creates an entry and tells its ID.
    async fn create(&self, entry: types::Entry) -> String {
        let request = BatchCreateEntryRequest {
            entries: vec![entry],
            ..BatchCreateEntryRequest::default()
        };
        let mut entries = EntryClient::new(self.server.local());
        let answer = entries.batch_create_entry(request).await.unwrap();
        let result = answer.into_inner().results.remove(0);
        assert_eq!(result.status.unwrap().code, 0);
        result.entry.unwrap().id
    }

    async fn batch(&mut self, params: Vec<NewX509svidParams>) -> Result<Vec<BatchResult>, Status> {
        let answer = self
            .svids
            .batch_new_x509svid(BatchNewX509svidRequest { params });
        Ok(answer.await?.into_inner().results)
    }

    async fn bundles(&self) -> BundleSet {
        BundleSet::from_iter([std::sync::Arc::new(self.server.bundle().await)])
    }

    fn operator(&self) -> SvidClient<Channel> {
        SvidClient::new(self.server.local())
    }
}

fn key() -> PrivateKey {
    PrivateKey::generate(KeyType::EcP256).unwrap()
}

fn params(entry_id: &str, csr: Vec<u8>) -> NewX509svidParams {
    NewX509svidParams {
        entry_id: entry_id.to_owned(),
        csr: csr.into(),
    }
}

fn good_csr() -> Vec<u8> {
    key().csr(None, &[]).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the server's clock is the machine's"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn lifetime(svid: &X509Svid) -> Duration {
    svid.expires_at().duration_since(svid.not_before()).unwrap()
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

/// The certificates of a result that went well.
fn svid(wire: &types::X509svid, key: PrivateKey) -> X509Svid {
    convert::x509_svid(wire, key).unwrap()
}

#[tokio::test]
async fn s_5_an_agent_gets_its_entrys_names_whatever_its_csr_asks() {
    let mut house = House::new().await;
    let entry = types::Entry {
        dns_names: vec!["web.example.org".to_owned(), "web".to_owned()],
        x509_svid_ttl: 600,
        hint: "internal".to_owned(),
        ..house.entry("/web")
    };
    let entry = house.create(entry).await;
    let key = key();
    let greedy = SpiffeId::parse("spiffe://example.org/spire/server").unwrap();
    let csr = key.csr(Some(&greedy), &["evil.example.org".to_owned()]);

    let results = house
        .batch(vec![params(&entry, csr.unwrap())])
        .await
        .unwrap();

    let result = &results[0];
    assert_eq!(result.status, Some(convert::ok_status()));
    let wire = result.svid.as_ref().unwrap();
    assert_eq!(wire.hint, "internal");
    let svid = svid(wire, key);
    assert_eq!(svid.id().as_str(), "spiffe://example.org/web");
    assert_eq!(svid.leaf().dns_names(), ["web.example.org", "web"]);
    assert_eq!(svid.leaf().subject(), "C=US, O=SPIRE, CN=web.example.org");
    // Ten seconds for clocks that lag.
    assert_eq!(lifetime(&svid), minutes(10) + Duration::from_secs(10));
    assert_eq!(wire.expires_at, convert::wire_time(svid.expires_at()));
    let verified = verify_x509_svid(svid.chain(), &house.bundles().await, now());
    assert_eq!(verified.as_ref(), Ok(svid.id()));
}

#[tokio::test]
async fn each_item_of_a_batch_has_its_own_result_in_order() {
    let mut house = House::new().await;
    let first = house.create(house.entry("/first")).await;
    let second = house.create(house.entry("/second")).await;
    let foreign = types::Entry {
        parent_id: Some((&house.server.id("/spire/agent/join_token/other")).into()),
        ..house.entry("/foreign")
    };
    let foreign = house.create(foreign).await;
    let mut unsigned = good_csr();
    let last = unsigned.len() - 1;
    unsigned[last] ^= 1;
    let items = [
        (second.as_str(), good_csr(), Code::Ok, "OK"),
        (
            &foreign,
            good_csr(),
            Code::NotFound,
            "entry not found or not authorized",
        ),
        (
            "unknown",
            good_csr(),
            Code::NotFound,
            "entry not found or not authorized",
        ),
        (
            "not an ID!",
            good_csr(),
            Code::NotFound,
            "entry not found or not authorized",
        ),
        ("", good_csr(), Code::InvalidArgument, "missing entry ID"),
        (&first, Vec::new(), Code::InvalidArgument, "missing CSR"),
        (
            &first,
            b"junk".to_vec(),
            Code::InvalidArgument,
            "malformed CSR: ",
        ),
        (
            &first,
            unsigned,
            Code::InvalidArgument,
            "failed to verify CSR signature",
        ),
        (&first, good_csr(), Code::Ok, "OK"),
    ];
    let asked = items.iter().map(|(id, csr, ..)| params(id, csr.clone()));
    let results = house.batch(asked.collect()).await.unwrap();

    assert_eq!(results.len(), items.len());
    for (result, (id, _, code, message)) in results.iter().zip(&items) {
        let status = result.status.as_ref().unwrap();
        assert_eq!(Code::from(status.code), *code, "{id}: {status:?}");
        assert!(status.message.starts_with(message), "{id}: {status:?}");
        assert_eq!(result.svid.is_some(), *code == Code::Ok, "{id}");
    }
    let path = |result: &BatchResult| result.svid.clone().unwrap().id.unwrap().path;
    assert_eq!(
        (path(&results[0]), path(&results[8])),
        ("/second".into(), "/first".into())
    );
}

#[tokio::test]
async fn a_batch_of_500_is_signed_in_order_and_one_more_is_refused() {
    let mut house = House::new().await;
    let entry = house.create(house.entry("/web")).await;
    let keys: Vec<PrivateKey> = (0..500).map(|_| key()).collect();
    let asked = keys
        .iter()
        .map(|key| params(&entry, key.csr(None, &[]).unwrap()));
    let results = house.batch(asked.collect()).await.unwrap();
    assert_eq!(results.len(), keys.len());
    for (result, key) in results.iter().zip(keys) {
        // Joins only if the certificate is this key's.
        svid(result.svid.as_ref().unwrap(), key);
    }
    let many = vec![params(&entry, Vec::new()); 501];
    let refused = house.batch(many).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn an_entry_that_was_deleted_is_signed_for_no_more() {
    let mut house = House::new().await;
    let entry = house.create(house.entry("/web")).await;
    let asked = || vec![params(&entry, good_csr())];
    assert!(house.batch(asked()).await.unwrap()[0].svid.is_some());
    let request = proto::spire::api::server::entry::v1::BatchDeleteEntryRequest {
        ids: vec![entry.clone()],
    };
    let mut entries = EntryClient::new(house.server.local());
    entries.batch_delete_entry(request).await.unwrap();
    let result = house.batch(asked()).await.unwrap().remove(0);
    assert_eq!(Code::from(result.status.unwrap().code), Code::NotFound);
}

#[tokio::test]
async fn as_19_weak_keys_are_refused() {
    let mut house = House::new().await;
    let entry = house.create(house.entry("/web")).await;
    // The key is of a kind that is signed for nowhere.
    let weak = csr_of_another_curve();
    let result = house
        .batch(vec![params(&entry, weak)])
        .await
        .unwrap()
        .remove(0);
    let status = result.status.unwrap();
    assert_eq!(Code::from(status.code), Code::InvalidArgument);
    assert!(
        status.message.contains("the CSR's key is refused"),
        "{status:?}"
    );
}

/// A request whose curve is called P-192: refused before any signature is looked at.
fn csr_of_another_curve() -> Vec<u8> {
    let mut csr = good_csr();
    let p256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let at = csr.windows(8).position(|bytes| bytes == p256).unwrap();
    csr[at + 7] = 1;
    csr
}

#[tokio::test]
async fn an_agent_gets_a_jwt_svid_for_its_entry() {
    let mut house = House::new().await;
    let entry = types::Entry {
        jwt_svid_ttl: 120,
        hint: "internal".to_owned(),
        additional_attributes: Some(types::entry::AdditionalAttributes {
            jwt_svid_include_jti: true,
            ..types::entry::AdditionalAttributes::default()
        }),
        ..house.entry("/web")
    };
    let entry = house.create(entry).await;
    let request = NewJwtsvidRequest {
        entry_id: entry,
        audience: vec!["db".to_owned(), "cache".to_owned()],
    };
    let answer = house.svids.new_jwtsvid(request).await.unwrap().into_inner();
    let wire = answer.svid.unwrap();
    let svid = JwtSvid::verify(&wire.token, "cache", &house.bundles().await, now()).unwrap();
    assert_eq!(svid.id, house.server.id("/web"));
    assert_eq!(svid.audience, ["db", "cache"]);
    assert_eq!(svid.claims["jti"].as_str().unwrap().len(), 32);
    assert!(!svid.claims.contains_key("iss"));
    assert_eq!(wire.expires_at - wire.issued_at, 120);
    assert_eq!(wire.expires_at, convert::wire_time(svid.expires_at));
    assert_eq!(wire.id, Some((&svid.id).into()));
    assert_eq!(wire.hint, "internal");
}

#[tokio::test]
async fn jwt_svids_that_are_refused() {
    let mut house = House::new().await;
    let mine = house.create(house.entry("/web")).await;
    let foreign = types::Entry {
        parent_id: Some((&house.server.id("/spire/agent/join_token/other")).into()),
        ..house.entry("/foreign")
    };
    let foreign = house.create(foreign).await;
    let db = vec!["db".to_owned()];
    let cases = [
        (
            mine.clone(),
            vec![],
            Code::InvalidArgument,
            "at least one audience is required",
        ),
        (
            mine,
            vec![String::new()],
            Code::InvalidArgument,
            "a JWT-SVID needs at least one audience",
        ),
        (
            String::new(),
            db.clone(),
            Code::InvalidArgument,
            "missing entry ID",
        ),
        (
            "unknown".to_owned(),
            db.clone(),
            Code::NotFound,
            "entry not found or not authorized",
        ),
        (
            foreign,
            db,
            Code::NotFound,
            "entry not found or not authorized",
        ),
    ];
    for (entry_id, audience, code, text) in cases {
        let request = NewJwtsvidRequest { entry_id, audience };
        let refused = house.svids.new_jwtsvid(request).await.unwrap_err();
        assert_eq!(refused.code(), code);
        assert!(refused.message().starts_with(text), "{refused}");
    }
}

#[tokio::test]
async fn an_operator_mints_what_the_csr_names() {
    let house = House::new().await;
    let (key, id) = (key(), house.server.id("/legacy"));
    let csr = key
        .csr(Some(&id), &["legacy.example.org".to_owned()])
        .unwrap();
    let request = MintX509svidRequest {
        csr: csr.into(),
        ttl: 300,
    };
    let answer = house.operator().mint_x509svid(request).await.unwrap();
    let svid = svid(&answer.into_inner().svid.unwrap(), key);
    assert_eq!(check_leaf(svid.leaf()), Ok(&id));
    assert_eq!(svid.leaf().dns_names(), ["legacy.example.org"]);
    assert_eq!(lifetime(&svid), minutes(5) + Duration::from_secs(10));
}

#[tokio::test]
async fn a_mint_without_a_ttl_has_the_default_and_never_outlives_the_authority() {
    let house = House::new().await;
    for (ttl, expected) in [(0, minutes(60)), (i32::MAX, minutes(24 * 60))] {
        let key = key();
        let csr = key.csr(Some(&house.server.id("/web")), &[]).unwrap();
        let request = MintX509svidRequest {
            csr: csr.into(),
            ttl,
        };
        let answer = house.operator().mint_x509svid(request).await.unwrap();
        let svid = svid(&answer.into_inner().svid.unwrap(), key);
        let slack = Duration::from_secs(60);
        assert!(lifetime(&svid) <= expected + slack, "{:?}", lifetime(&svid));
        assert!(lifetime(&svid) + slack >= expected, "{:?}", lifetime(&svid));
    }
}

#[tokio::test]
async fn mints_that_are_refused() {
    let house = House::new().await;
    let csr = |id: Option<&str>, dns: &[&str]| {
        let id = id.map(|id| SpiffeId::parse(id).unwrap());
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        key().csr(id.as_ref(), &dns).unwrap()
    };
    let web = Some("spiffe://example.org/web");
    let cases = [
        (Vec::new(), 0, "missing CSR"),
        (b"junk".to_vec(), 0, "malformed CSR: "),
        (csr(None, &[]), 0, "CSR URI SAN is required"),
        (
            csr(Some("spiffe://other.org/web"), &[]),
            0,
            "CSR URI SAN is invalid: ",
        ),
        (
            csr(Some("spiffe://example.org"), &[]),
            0,
            "CSR URI SAN is invalid: ",
        ),
        (
            csr(Some("spiffe://example.org/spire/server"), &[]),
            0,
            "CSR URI SAN is invalid: ",
        ),
        (
            csr(Some("spiffe://example.org/spire/agent/x"), &[]),
            0,
            "CSR URI SAN is invalid: ",
        ),
        (csr(web, &["not a name"]), 0, "DNS name "),
        (csr(web, &[]), -1, "ttl"),
    ];
    for (csr, ttl, text) in cases {
        let request = MintX509svidRequest {
            csr: csr.into(),
            ttl,
        };
        let refused = house.operator().mint_x509svid(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(text), "{refused}");
    }
}

#[tokio::test]
async fn an_operator_mints_jwt_svids() {
    let house = House::new().await;
    let id = house.server.id("/web");
    let request = MintJwtsvidRequest {
        id: Some((&id).into()),
        audience: vec!["db".to_owned()],
        ttl: 0,
    };
    let answer = house
        .operator()
        .mint_jwtsvid(request.clone())
        .await
        .unwrap();
    let wire = answer.into_inner().svid.unwrap();
    let svid = JwtSvid::verify(&wire.token, "db", &house.bundles().await, now()).unwrap();
    assert_eq!(svid.id, id);
    assert_eq!(wire.expires_at - wire.issued_at, 300);
    let issued = UNIX_EPOCH + Duration::from_secs(wire.issued_at.unsigned_abs());
    assert_eq!(svid.issued_at, Some(issued));

    for path in ["", "/spire/server"] {
        let refused = MintJwtsvidRequest {
            id: Some(types::Spiffeid {
                trust_domain: "example.org".to_owned(),
                path: path.to_owned(),
            }),
            ..request.clone()
        };
        let refused = house.operator().mint_jwtsvid(refused).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().starts_with("SPIFFE ID is invalid: "),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn without_jwt_svids_the_methods_are_not_there() {
    let server = TestServer::start_with(|config| config.ca.disable_jwt_svids = true).await;
    let request = MintJwtsvidRequest {
        id: Some((&server.id("/web")).into()),
        audience: vec!["db".to_owned()],
        ttl: 0,
    };
    let mut operator = SvidClient::new(server.local());
    let refused = operator.mint_jwtsvid(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(server.bundle().await.jwt_authorities.is_empty());
}

#[tokio::test]
async fn conf_id_20_wit_svids_are_not_issued() {
    let mut house = House::new().await;
    let mut operator = house.operator();
    let refused = operator.mint_witsvid(MintWitsvidRequest::default());
    assert_eq!(refused.await.unwrap_err().code(), Code::Unimplemented);
    let refused = house
        .svids
        .batch_new_witsvid(BatchNewWitsvidRequest::default());
    assert_eq!(refused.await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_restart_with_keys_on_disk_keeps_what_was_issued_and_the_authority() {
    let in_folder = |config: &mut server::Config| {
        config.key_manager = server::config::KeyManager::Disk {
            keys_path: config.data_dir.join("keys.json"),
        };
    };
    let before = TestServer::start_with(in_folder).await;
    let id = before.id("/web");
    let svid = before.mint(&id).await;
    let bundle = before.bundle().await;
    let after = TestServer::start_in(before.stop().await, in_folder).await;
    assert_eq!(after.bundle().await, bundle);
    let bundles = BundleSet::from_iter([std::sync::Arc::new(bundle)]);
    let newer: Vec<Certificate> = after.mint(&id).await.chain().to_vec();
    for chain in [svid.chain(), &newer] {
        assert_eq!(verify_x509_svid(chain, &bundles, now()), Ok(id.clone()));
    }
}
