use std::collections::BTreeMap;

use super::read::documents;
use super::*;

const ENTRY: &str = "apiVersion: spire.spiffe.io/v1alpha1\nkind: ClusterStaticEntry\nmetadata: {name: db}\nspec:\n  spiffeID: spiffe://example.org/db\n  parentID: spiffe://example.org/node\n  selectors: [\"unix:uid:$UID\"]\n";

fn file(name: &str, text: &str) -> File {
    (name.to_owned(), Ok(text.to_owned()))
}

#[test]
fn documents_of_the_kinds_are_taken_and_others_passed_over() {
    let more = "---\nkind: ConfigMap\n---\n# nothing\n---\napiVersion: spire.spiffe.io/v1alpha1\nkind: ClusterFederatedTrustDomain\nspec: {trustDomain: b.org}\n";
    let read = documents(&[file("a.yaml", &format!("{ENTRY}{more}"))], None);
    assert_eq!(read.problems, []);
    let kinds: Vec<_> = read.objects.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::StaticEntry, Kind::FederatedTrustDomain]);
    assert_eq!(
        read.objects[0].1["metadata"]["uid"],
        "a.yaml/ClusterStaticEntry/db"
    );
}

#[test]
fn the_environment_is_put_in_when_asked() {
    let selectors = |environment: Option<&BTreeMap<String, String>>| {
        let read = documents(&[file("a.yaml", ENTRY)], environment);
        let first = read.objects.first();
        first.map(|(_, object)| object["spec"]["selectors"][0].clone())
    };
    let environment = BTreeMap::from([("UID".to_owned(), "7".to_owned())]);
    assert_eq!(selectors(Some(&environment)).unwrap(), "unix:uid:7");
    assert_eq!(selectors(None).unwrap(), "unix:uid:$UID");
    let read = documents(&[file("a.yaml", ENTRY)], Some(&BTreeMap::new()));
    assert!(
        read.problems[0].message.contains("`UID` is not set"),
        "{read:?}"
    );
}

#[test]
fn a_mistake_has_its_file_and_line_and_leaves_the_rest() {
    let broken = "---\na: [\n---\napiVersion: spire.spiffe.io/v1\nkind: ClusterStaticEntry\n---\napiVersion: spire.spiffe.io/v1alpha1\nkind: ClusterSPIFFEID\n";
    let files = [
        file("a.yaml", ENTRY),
        file("b.yaml", &format!("{ENTRY}{broken}---\n{ENTRY}")),
        ("c.yaml".to_owned(), Err("no permission".to_owned())),
    ];
    let read = documents(&files, None);
    assert_eq!(read.objects.len(), 2, "one of each file: {read:?}");
    let told: Vec<_> = read.problems.iter().map(ToString::to_string).collect();
    for expected in [
        "b.yaml:8: not valid YAML",
        "b.yaml:10: apiVersion \"spire.spiffe.io/v1\": write spire.spiffe.io/v1alpha1",
        "b.yaml:13: ClusterSPIFFEID is about pods",
        "b.yaml:16: another document of this file",
        "c.yaml: no permission",
    ] {
        assert!(
            told.iter().any(|line| line.starts_with(expected)),
            "{expected:?} is not in {told:#?}"
        );
    }
}

#[tokio::test]
async fn a_list_is_closed_only_when_every_file_could_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.yaml"), ENTRY).unwrap();
    std::fs::write(path("a.yaml.bak"), "a: [").unwrap();
    std::fs::write(path("broken.yaml"), "a: [").unwrap();
    let (sender, mut events) = mpsc::channel(16);
    let (_, tasks) = runtime::Supervisor::new();
    let told = Folder {
        path: folder.path().to_owned(),
        environment: None,
        listeners: vec![(Kind::StaticEntry, sender)],
        every: Duration::from_millis(10),
        metrics: Metrics::with_labels("test", &[]),
    };
    tasks.spawn("folder", told.run(tasks.shutdown()));
    assert!(matches!(events.recv().await, Some(Event::Begin(_))));
    assert!(matches!(events.recv().await, Some(Event::Apply(..))));
    std::fs::remove_file(path("broken.yaml")).unwrap();
    assert!(matches!(events.recv().await, Some(Event::Begin(_))));
    assert!(matches!(events.recv().await, Some(Event::Apply(..))));
    assert!(matches!(events.recv().await, Some(Event::End(_))));
    std::fs::remove_file(path("a.yaml")).unwrap();
    assert!(matches!(events.recv().await, Some(Event::Begin(_))));
    assert!(matches!(events.recv().await, Some(Event::End(_))));
    tasks.stop();
}
