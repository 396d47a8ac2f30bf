use std::collections::BTreeMap;

use super::*;

/// As the hardened chart renders it.
const CHART: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ControllerManagerConfig
metrics:
  bindAddress: 0.0.0.0:8082
health:
  healthProbeBindAddress: 0.0.0.0:8083
leaderElection:
  leaderElect: true
  resourceName: 98c9c988.spiffe.io
  resourceNamespace: spire-server
validatingWebhookConfigurationName: spire-spire-controller-manager-webhook
entryIDPrefix: production
cacheNamespaces: {}
clusterName: production
trustDomain: example.org
ignoreNamespaces:
  - kube-system
  - kube-public
  - local-path-storage
  - openshift-.*
spireServerSocketPath: "/tmp/spire-server/private/api.sock"
className: "spire-server-spire"
watchClassless: false
parentIDTemplate: "spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}"
logLevel: info
logEncoding: console
gcInterval: 10000000000
reconcile:
  clusterSPIFFEIDs: true
  clusterStaticEntries: true
  clusterFederatedTrustDomains: true
"#;

#[test]
fn ctl_04_the_charts_file_is_taken_as_it_is() {
    let config = read(CHART, None).unwrap();
    assert_eq!(config.resync, Duration::from_secs(10));
    assert_eq!(config.ownership.prefix, "production.");
    assert_eq!(config.metrics_address.unwrap().port(), 8082);
    assert_eq!(config.leader_election.name, "98c9c988.spiffe.io");
    assert_eq!(
        (
            config.webhook.address.port(),
            config.webhook.configuration.as_str()
        ),
        (9443, "spire-spire-controller-manager-webhook")
    );
    assert!(
        config.class.takes("spire-server-spire")
            && !config.class.takes("")
            && !config.class.takes("other")
    );
    assert!(
        config
            .ignore_namespaces
            .iter()
            .any(|pattern| pattern.is_match("my-openshift-x")),
        "unanchored, as Go's"
    );
}

#[test]
fn the_smallest_file_has_defaults() {
    let config = read("clusterName: east.one\ntrustDomain: example.org\n", None).unwrap();
    assert_eq!(config.ownership.prefix, "east-one.");
    assert_eq!(
        config.server_socket,
        PathBuf::from("/spire-server/api.sock")
    );
    assert!(config.class.takes("") && !config.class.takes("x"));
    assert!(config.reconcile.static_entries && !config.leader_election.enabled);
    assert!(
        config
            .ignore_namespaces
            .iter()
            .any(|pattern| pattern.is_match("kube-system"))
    );
}

#[test]
fn every_mistake_has_its_path() {
    let text = "trustDomain: Example.org\ngcIntervall: 5s\nleaderElection: {leaseDuration: 5s}\nignoreNamespaces: ['(']\nparentIDTemplate: '{{ .PodMeta.UID }}'\nmetrics: {bindAddress: nowhere}\nsignet: {massDeletePercent: 150, x: 1}\nreconcile: {clusterSpiffeIDs: true}\n";
    let problems = read(text, None).unwrap_err().to_string();
    for expected in [
        "clusterName: missing",
        "trustDomain: ",
        "gcIntervall: unknown key; did you mean `gcInterval`?",
        "leaderElection: retryPeriod must be shorter",
        "ignoreNamespaces: \"(\" is not a regular expression",
        "parentIDTemplate: NodeData has no field or getter `PodMeta`",
        "metrics.bindAddress: \"nowhere\"",
        "signet.massDeletePercent: ",
        "signet.x: unknown key",
        "reconcile.clusterSpiffeIDs: unknown key; did you mean `clusterSPIFFEIDs`?",
    ] {
        assert!(
            problems.contains(expected),
            "{expected:?} is not in\n{problems}"
        );
    }
}

#[test]
fn the_environment_is_expanded_when_asked() {
    let environment = BTreeMap::from([("CLUSTER".to_owned(), "west".to_owned())]);
    let text = "clusterName: $CLUSTER\ntrustDomain: example.org\n";
    assert_eq!(
        read(text, Some(&environment)).unwrap().scope.cluster_name,
        "west"
    );
    assert_eq!(read(text, None).unwrap().scope.cluster_name, "$CLUSTER");
}

#[test]
fn what_is_no_block_is_said_so() {
    assert!(
        read("- a\n", None)
            .unwrap_err()
            .to_string()
            .contains("key: value")
    );
    assert!(
        read("a: [", None)
            .unwrap_err()
            .to_string()
            .contains("not valid YAML")
    );
}

#[test]
fn ctl_03_anchored_patterns_match_whole_names() {
    let text = "clusterName: a\ntrustDomain: b\nignoreNamespaces: [foo]\n";
    let matches = |text: &str| read(text, None).unwrap().ignore_namespaces[0].is_match("foo-bar");
    assert!(matches(text));
    assert!(!matches(&format!(
        "{text}signet: {{anchoredIgnoreNamespaces: true}}\n"
    )));
}

#[test]
fn a_folder_of_manifests_stands_in_for_kubernetes() {
    let text = "clusterName: scm\ntrustDomain: example.org\nclassName: scm\nwatchClassless: true\nstaticManifestPath: /etc/spire/manifests\n";
    let config = read(text, None).unwrap();
    let manifests = config.manifests.unwrap();
    assert_eq!(manifests.folder, PathBuf::from("/etc/spire/manifests"));
    assert!(!manifests.expand_environment && !config.reconcile.spiffe_ids);
    assert!(config.reconcile.static_entries && config.reconcile.federated_trust_domains);
    let alone = "clusterName: a\ntrustDomain: b\nexpandEnvStaticManifests: true\n";
    let problems = read(alone, None).unwrap_err().to_string();
    assert!(problems.starts_with("expandEnvStaticManifests: "));
    let given = read(
        &format!("{text}signet: {{federationRecord: /var/lib/record}}\n"),
        None,
    );
    let record = given.unwrap().manifests.unwrap().federation_record;
    assert_eq!(record, Some(PathBuf::from("/var/lib/record")));
    let alone = "clusterName: a\ntrustDomain: b\nsignet: {federationRecord: /var/lib/record}\n";
    let problems = read(alone, None).unwrap_err().to_string();
    assert!(
        problems.starts_with("signet.federationRecord: "),
        "{problems}"
    );
}

#[test]
fn the_class_filters_what_the_api_server_tells() {
    let labels = |more: &str| {
        let text = format!("clusterName: a\ntrustDomain: b\n{more}");
        read(&text, None)
            .map(|config| config.spiffe_id_labels)
            .map_err(|problems| problems.to_string())
    };
    assert_eq!(labels("").unwrap(), BTreeMap::new());
    let both = "className: x\nfilterByClassName: true\nclusterSPIFFEIDLabelSelector: {child: 'true', spire.spiffe.io/class-name: y}\n";
    let expected = [("child", "true"), ("spire.spiffe.io/class-name", "x")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(labels(both).unwrap(), BTreeMap::from(expected));
    let classless = labels("filterByClassName: true\n").unwrap_err();
    assert!(classless.starts_with("filterByClassName: it wants a className"));
    let odd = labels("clusterSPIFFEIDLabelSelector: {'a=b,c': d}\n").unwrap_err();
    assert!(odd.starts_with("clusterSPIFFEIDLabelSelector: "), "{odd}");
}
