use std::time::Duration;

use identity::{Selector, Selectors};
use k8s::workload::watch_x509;
use runtime::Supervisor;
use testkit::{TestAgent, TestServer};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_context_follows_the_agent_through_its_restart() {
    let server = TestServer::start().await;
    let agent = TestAgent::start(&server).await;
    let (_supervisor, tasks) = Supervisor::new();
    let mut contexts = watch_x509(agent.socket(), &tasks);
    assert!(contexts.borrow().is_none());

    let uid = nix::unistd::getuid();
    let selector = Selector::parse(&format!("unix:uid:{uid}")).unwrap();
    let selectors = Selectors::from_iter([selector]);
    // Refused at first: the client goes on asking.
    server
        .entry(&server.id("/node"), "/web", &selectors, 3600)
        .await;
    let first = timeout(LONG, contexts.wait_for(Option::is_some)).await;
    let first = first.unwrap().unwrap().clone().unwrap();
    assert_eq!(first.default_svid().svid.id(), &server.id("/web"));
    let own = first.default_svid().svid.id().trust_domain();
    assert_eq!(
        first.bundles.get(own).unwrap().x509_authorities,
        server.bundle().await.x509_authorities
    );

    let dir = agent.stop().await;
    let config = TestAgent::config(&server, &dir, None);
    let _agent = TestAgent::start_with(config, dir).await.unwrap();
    server
        .entry(&server.id("/node"), "/second", &selectors, 3600)
        .await;
    let both = |context: &Option<std::sync::Arc<k8s::workload::X509Context>>| {
        context.as_ref().is_some_and(|one| one.svids.len() == 2)
    };
    timeout(LONG, contexts.wait_for(both))
        .await
        .unwrap()
        .unwrap();
    assert!(!tasks.shutdown().is_cancelled());
}
