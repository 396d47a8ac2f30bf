use kube::core::Expression;

use super::*;

const DOMAIN: &str = "example.org";

fn labels(value: &str) -> Namespace {
    Namespace {
        labels: BTreeMap::from([("mesh".to_owned(), value.to_owned())]),
        is_ending: false,
    }
}

/// A plan that knows `spire` (its own), `shop` (selected), `plain` (not) and `ending` (selected), and no object yet.
fn plan() -> Plan {
    let selector: Selector = Expression::Equal("mesh".to_owned(), "on".to_owned()).into();
    let mut plan = Plan::new(DOMAIN.to_owned(), "spire".to_owned(), Some(selector));
    plan.publish("pem-1".to_owned(), "pem-1".to_owned());
    plan.namespace(Told::Begin);
    let ending = Namespace {
        is_ending: true,
        ..labels("on")
    };
    for (name, namespace) in [
        ("spire", Namespace::default()),
        ("shop", labels("on")),
        ("plain", labels("off")),
        ("ending", ending),
    ] {
        plan.namespace(Told::Listed(name.to_owned(), namespace));
    }
    plan.namespace(Told::End);
    plan.config_map(Told::Begin);
    plan.config_map(Told::End);
    plan
}

fn ours(content: Option<&str>) -> Seen {
    Seen {
        content: content.map(str::to_owned),
        trust_domain: Some(DOMAIN.to_owned()),
        is_managed: true,
        ..Seen::default()
    }
}

fn others(content: Option<&str>) -> Seen {
    Seen {
        content: content.map(str::to_owned),
        managers: "kubectl".to_owned(),
        ..Seen::default()
    }
}

/// What is due, as `target` or, by force, `target!`.
fn due(plan: &Plan) -> String {
    let steps = plan.steps(100);
    let steps: Vec<String> = steps
        .iter()
        .map(|step| {
            let target = match &step.target {
                Target::ConfigMap(namespace) => namespace,
                Target::TrustBundle => "cluster",
            };
            format!("{target}{}", if step.force { "!" } else { "" })
        })
        .collect();
    steps.join(" ")
}

/// The API server takes everything that is due.
fn write_all(plan: &mut Plan) {
    for step in plan.steps(100) {
        plan.written(&step, ours(Some(&step.content)));
    }
}

fn changed(plan: &mut Plan, namespace: &str, seen: Seen) {
    plan.config_map(Told::Changed(namespace.to_owned(), seen));
}

#[test]
fn ctl_20_its_own_namespace_and_those_selected_get_one() {
    let mut plan = plan();
    assert_eq!(due(&plan), "shop spire");
    write_all(&mut plan);
    assert_eq!(due(&plan), "");
    plan.namespace(Told::Changed("plain".to_owned(), labels("on")));
    plan.namespace(Told::Changed("new".to_owned(), labels("on")));
    assert_eq!(due(&plan), "new plain");
    write_all(&mut plan);
    plan.publish("pem-2".to_owned(), "pem-2".to_owned());
    assert_eq!(due(&plan), "new! plain! shop! spire!");
}

#[test]
fn ctl_20_nothing_is_written_before_everything_is_known() {
    let mut plan = Plan::new(DOMAIN.to_owned(), "spire".to_owned(), None);
    plan.namespace(Told::Begin);
    plan.namespace(Told::Listed("spire".to_owned(), Namespace::default()));
    plan.namespace(Told::End);
    plan.trust_bundle(Told::Begin);
    plan.publish("pem".to_owned(), "pem".to_owned());
    assert_eq!(
        due(&plan),
        "",
        "neither ConfigMaps nor the bundle are listed"
    );
    plan.trust_bundle(Told::End);
    assert_eq!(due(&plan), "cluster");
    plan.config_map(Told::Begin);
    plan.config_map(Told::End);
    assert_eq!(due(&plan), "spire cluster");
}

#[test]
fn ctl_20_what_is_ours_is_healed_and_what_is_foreign_left_alone() {
    let unmarked = Seen {
        trust_domain: None,
        ..ours(Some("pem-1"))
    };
    let other_domain = Seen {
        trust_domain: Some("other.example".to_owned()),
        ..ours(Some("pem-x"))
    };
    for (seen, expected, is_foreign) in [
        (ours(Some("pem-1")), "", false),
        (ours(Some("edited")), "shop!", false),
        (ours(None), "shop!", false),
        (unmarked, "shop!", false),
        // Somebody's ConfigMap without our key gets it; one that holds the same is as good as ours.
        (others(None), "shop", false),
        (others(Some("pem-1")), "", false),
        (others(Some("theirs")), "", true),
        (other_domain, "", true),
    ] {
        let mut plan = plan();
        write_all(&mut plan);
        changed(&mut plan, "shop", seen.clone());
        assert_eq!(due(&plan), expected, "{seen:?}");
        assert_eq!(plan.count(), (2, usize::from(is_foreign)), "{seen:?}");
        let named = plan.foreign();
        assert_eq!(named.len(), usize::from(is_foreign), "{seen:?}");
    }
}

#[test]
fn ctl_20_a_deleted_one_is_made_anew() {
    let mut plan = plan();
    write_all(&mut plan);
    plan.config_map(Told::Gone("shop".to_owned()));
    assert_eq!(due(&plan), "shop");
    // A deletion that a broken watch missed shows in the next list.
    write_all(&mut plan);
    plan.config_map(Told::Begin);
    plan.config_map(Told::Listed("shop".to_owned(), ours(Some("pem-1"))));
    assert_eq!(due(&plan), "", "a list under way says nothing yet");
    plan.config_map(Told::End);
    assert_eq!(due(&plan), "spire");
}

#[test]
fn a_foreign_one_is_named_once_and_again_when_it_changes() {
    let mut plan = plan();
    write_all(&mut plan);
    changed(&mut plan, "shop", others(Some("theirs")));
    let target = Target::ConfigMap("shop".to_owned());
    assert_eq!(plan.foreign(), [(target, others(Some("theirs")))]);
    assert_eq!(plan.foreign(), []);
    changed(&mut plan, "shop", others(Some("theirs, too")));
    assert_eq!(plan.foreign().len(), 1);
    plan.begin_to_lead();
    assert_eq!(plan.foreign().len(), 1);
}

#[test]
fn what_failed_waits_for_the_next_try_or_a_change() {
    let mut plan = plan();
    plan.failed(Target::ConfigMap("shop".to_owned()));
    assert_eq!(due(&plan), "spire");
    assert!(plan.is_waiting());
    plan.retry();
    assert_eq!(due(&plan), "shop spire");
    plan.failed(Target::ConfigMap("shop".to_owned()));
    plan.namespace(Told::Changed("shop".to_owned(), labels("on")));
    assert_eq!(due(&plan), "shop spire");
    // Somebody changes every write on its way in: no haste about it.
    for step in plan.steps(1) {
        plan.written(&step, ours(Some("changed on the way")));
    }
    assert_eq!(due(&plan), "spire");
    assert!(plan.is_waiting());
}
