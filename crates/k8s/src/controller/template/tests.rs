use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::*;

fn scope() -> Scope {
    Scope {
        trust_domain: TrustDomain::new("example.org").unwrap(),
        cluster_name: "east".to_owned(),
        cluster_domain: Some("cluster.local".to_owned()),
    }
}

fn pod() -> Json {
    json!({
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": "pod-uid",
            "labels": { "app": "web", "app.kubernetes.io/name": "front" },
            "creationTimestamp": "2026-11-26T11:00:00Z",
            "ownerReferences": [{ "kind": "StatefulSet", "name": "web" }],
        },
        "spec": {
            "serviceAccountName": "buyer", "nodeName": "n1", "dnsPolicy": "Default", "hostNetwork": true,
            "containers": [
                { "name": "app", "image": "shop/web:1", "ports": [{ "containerPort": 8080 }] },
                { "name": "log", "image": "log:2" },
            ],
        },
    })
}

fn node() -> Json {
    json!({ "metadata": { "name": "n1", "uid": "node-uid", "labels": { "zone": "z1" } }, "spec": { "providerID": "kind://n1" } })
}

fn render(source: &str) -> Result<String, TemplateError> {
    let template = Template::compile(source, Sees::Pod)?;
    let data = Data::new([&template], &scope(), &pod(), &node());
    template.render(&data)
}

/// What Go's text/template makes of these with the same data (checked against Go 1.27 for the ones that differ by type).
const CORPUS: &[(&str, &str)] = &[
    (
        "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}",
        "spiffe://example.org/ns/shop/sa/buyer",
    ),
    (
        "{{ .NodeMeta.UID }}/{{ .NodeSpec.ProviderID }}",
        "node-uid/kind://n1",
    ),
    (
        "{{ .PodMeta.GetName }}.{{ .PodMeta.GetNamespace }}",
        "web-0.shop",
    ),
    (
        "{{ index .PodMeta.Labels \"app.kubernetes.io/name\" }}",
        "front",
    ),
    ("[{{ index .PodMeta.Labels \"absent\" }}]", "[]"),
    ("[{{ index .PodMeta.Annotations \"absent\" }}]", "[]"),
    ("{{ .PodMeta.Labels.absent }}", "<no value>"),
    (
        "{{ if .PodMeta.Labels.app }}yes{{ else }}no{{ end }}",
        "yes",
    ),
    (
        "{{ with $x := .PodMeta.Labels.app }}{{ $x }}-{{ . }}{{ end }}",
        "web-web",
    ),
    (
        "{{ if $x := .PodSpec.HostNetwork }}{{ $x }}{{ end }}",
        "true",
    ),
    (
        "{{ range .PodSpec.Containers }}{{ .Name }},{{ end }}",
        "app,log,",
    ),
    (
        "{{ range $i, $c := .PodSpec.Containers }}{{ $i }}{{ $c.Image }};{{ end }}",
        "0shop/web:1;1log:2;",
    ),
    (
        "{{ range .PodSpec.Containers }}{{ if eq .Name \"log\" }}{{ break }}{{ end }}{{ .Name }}{{ end }}",
        "app",
    ),
    (
        "{{ range $k, $v := .PodMeta.Labels }}{{ $k }}={{ $v }} {{ end }}",
        "app=web app.kubernetes.io/name=front ",
    ),
    ("{{ (index .PodSpec.Containers 0).Image }}", "shop/web:1"),
    (
        "{{ (index (index .PodSpec.Containers 0).Ports 0).ContainerPort }}",
        "8080",
    ),
    (
        "{{ (index .PodMeta.OwnerReferences 0).Kind }}",
        "StatefulSet",
    ),
    (
        "{{ printf \"%s-%q-%d-%05d-%v\" .PodMeta.Name \"a\" 7 42 true }}",
        "web-0-\"a\"-7-00042-true",
    ),
    ("{{ .PodMeta.Name | printf \"%.3s\" }}", "web"),
    (
        "{{ len .PodSpec.Containers }}{{ len .PodMeta.Annotations }}",
        "20",
    ),
    ("{{ slice .PodMeta.Name 0 3 }}", "web"),
    (
        "{{ eq .PodMeta.Name \"x\" \"web-0\" }} {{ ne 1 2 }} {{ lt 1 2 }} {{ not true }}",
        "true true true false",
    ),
    (
        "{{ or .PodMeta.Labels.absent \"dflt\" }}{{ and 1 0 }}",
        "dflt0",
    ),
    ("a  {{- \" b \" -}}  c", "a b c"),
    ("{{/* nothing */}}x", "x"),
    (
        "{{ define \"t\" }}<{{ .Name }}>{{ end }}{{ template \"t\" .PodMeta }}",
        "<web-0>",
    ),
    ("{{ $n := .PodMeta.Name }}{{ $n = \"z\" }}{{ $n }}", "z"),
    (
        "{{ urlquery \"a b&c\" }} {{ html \"<b>\" }} {{ js \"it's\" }}",
        "a+b%26c &lt;b&gt; it\\'s",
    ),
    ("{{ print 1 2 \"x\" 3 }}|{{ println 1 2 }}", "1 2x3|1 2\n"),
    (
        "{{ .PodMeta.CreationTimestamp }}",
        "2026-11-26 11:00:00 +0000 UTC",
    ),
    (
        "{{ if .PodSpec.SecurityContext }}set{{ else }}nil{{ end }}",
        "nil",
    ),
    (
        "{{ .PodSpec.HostIPC }}{{ .PodSpec.DNSPolicy }}{{ .PodSpec.Subdomain }}",
        "falseDefault",
    ),
    ("{{ range 3 }}{{ . }}{{ end }}", "012"),
    (
        "{{ $.ClusterName }}.{{ $.ClusterDomain }}",
        "east.cluster.local",
    ),
];

#[test]
fn ctl_02_renders_as_go_does() {
    for (source, expected) in CORPUS {
        assert_eq!(render(source).as_deref(), Ok(*expected), "{source}");
    }
}

#[test]
fn ctl_02_what_go_would_refuse_is_refused_when_read() {
    let no_field = |source: &str, said: &str| {
        let refused = Template::compile(source, Sees::Pod)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(said), "{source}: {refused}");
    };
    no_field(
        "{{ .PodMeta.Nam }}",
        "ObjectMeta has no field or getter `Nam`",
    );
    no_field("{{ .PodMeta.name }}", "did you mean `.Name`?");
    no_field("{{ .Pod }}", "PodData has no field or getter `Pod`");
    no_field(
        "{{ range .PodSpec.Containers }}{{ .Namee }}{{ end }}",
        "Container has no field or getter `Namee`",
    );
    no_field(
        "{{ $c := index .PodSpec.Containers 0 }}{{ $c.Foo }}",
        "Container has no field",
    );
    no_field(
        "{{ with .NodeMeta }}{{ .Foo }}{{ end }}",
        "ObjectMeta has no field",
    );
    no_field("{{ .PodMeta.Name.Foo }}", "string has no field");
    no_field(
        "{{ range .PodMeta }}{{ end }}",
        "cannot go over a ObjectMeta",
    );
    no_field("{{ template \"x\" . }}", "no template \"x\"");
    no_field("{{ .PodMeta.Name", "unclosed");
    no_field("{{ nosuch 1 }}", "nosuch");
}

#[test]
fn parents_see_no_pod() {
    assert!(Template::compile("{{ .NodeMeta.UID }}", Sees::Node).is_ok());
    assert!(Template::compile("{{ .PodMeta.UID }}", Sees::Node).is_err());
}

#[test]
fn only_what_is_asked_for_is_made() {
    let template = Template::compile("{{ .PodMeta.Name }}", Sees::Pod).unwrap();
    let Data(Value::Map(root)) = Data::new([&template], &scope(), &pod(), &node()) else {
        panic!()
    };
    assert_eq!(root["PodMeta"].len(), Some(1));
    assert_eq!(root["PodSpec"].len(), Some(0));
    assert!(
        render("{{ .PodSpec }}")
            .unwrap_or_default()
            .contains("shop/web:1")
            || render("{{ .PodSpec }}") == Err(TemplateError::Output)
    );
}

/// Each of these would keep an unbounded engine busy for minutes, or eat its memory.
#[test]
fn k6_ctl_02_template_bombs_go_off_harmlessly() {
    let doubling =
        "{{ $x := \"aaaaaaaa\" }}".to_owned() + &"{{ $x = print $x $x }}".repeat(60) + "{{ $x }}";
    let tree: String = (0..40).map(|n| format!("{{{{ define \"t{n}\" }}}}{{{{ template \"t{0}\" . }}}}{{{{ template \"t{0}\" . }}}}{{{{ end }}}}", n + 1)).collect();
    let bombs = [
        "{{ range 100000000 }}{{ end }}".to_owned(),
        "{{ range 100000 }}{{ range 100000 }}x{{ end }}{{ end }}".to_owned(),
        "{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}".to_owned(),
        "{{ define \"a\" }}{{ template \"b\" . }}{{ end }}{{ define \"b\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}".to_owned(),
        tree + "{{ define \"t40\" }}x{{ end }}{{ template \"t0\" . }}",
        doubling,
        "{{ range 200 }}{{ printf \"%65535d%65535d%65535d\" 1 2 3 }}{{ end }}".to_owned(),
        "{{ printf \"%*d\" 60000 1 }}".to_owned(),
        "{{ $s := printf \"%4000d\" 1 }}{{ range 200 }}{{ printf \"%[1]s%[1]s%[1]s%[1]s%[1]s\" $s }}{{ end }}".to_owned(),
        "{{ range 199 }}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{{ end }}".to_owned(),
        "{{ if true }}".repeat(90) + &"{{ end }}".repeat(90) + &"x".repeat(8000),
        format!("{{{{ {} }}}}", "(".repeat(4000)),
        "{{ .".repeat(2000),
        "x".repeat(MAX_SOURCE + 1),
    ];
    for bomb in bombs {
        let started = Instant::now();
        let refused = render(&bomb);
        assert!(refused.is_err(), "{bomb:.60}");
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "{bomb:.60}: {:?}",
            started.elapsed()
        );
    }
}

/// The most expensive template that passes the bounds still ends soon.
#[test]
fn k6_the_dearest_template_ends_soon() {
    let body = "{{ printf \"%s%s\" $s $s | len | print | html }}".repeat(30);
    let source = format!(
        "{{{{ $s := printf \"%3000d\" 1 }}}}{{{{ range 199 }}}}{{{{ if true }}}}{{{{ $x := 1 }}}}{body}{{{{ end }}}}{{{{ end }}}}"
    );
    let started = Instant::now();
    let _ = render(&source);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

proptest! {
    #[test]
    fn no_text_breaks_it(source in "(\\{\\{|\\}\\}|range|if|end|define|template|\"a\"|[.$]|PodMeta|Labels|index|printf|%s|[ -~]){0,40}") {
        let _ = render(&source);
    }

    #[test]
    fn text_without_actions_stays(source in "[a-zA-Z0-9 /:.<>-]{0,200}") {
        prop_assert_eq!(render(&source).unwrap(), source);
    }
}
