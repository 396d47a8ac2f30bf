use super::*;

#[test]
fn ctl_15_a_preview_says_what_would_be_done_and_why() {
    let mut ledger = ledger();
    let mut server = Server::default();
    server.put("east.gone", &wanted("/gone", "gone", ""));
    server.put("east.doubt", &wanted("/doubt", "doubt", ""));
    server.put("east.same", &wanted("/same", "p", "x"));
    server.put("old.same", &wanted("/same", "p", "x"));
    server.put("east.other", &wanted("/other", "p", "old"));
    server.put("manual", &wanted("/manual", "p", "theirs"));
    server.put("unrelated", &wanted("/unrelated", "", ""));
    let declared = ["/same", "/other", "/manual", "/new"];
    for (at, path) in declared.iter().enumerate() {
        let hint = if at == 0 { "x" } else { "" };
        ledger.want(source("u"), wanted(path, "p", hint), Instant::now());
    }
    ledger.begin_listing();
    ledger.list_page(&server.entries.values().cloned().collect::<Vec<_>>());
    ledger.end_listing();
    let verdict = |key: &Key| match key.spiffe_id.path() {
        "/doubt" => Verdict::Frozen,
        "/gone" => Verdict::Gone,
        _ => Verdict::Undeclared,
    };
    let told: Vec<_> = ledger
        .preview(verdict)
        .into_iter()
        .map(|change| {
            let path = change.key.spiffe_id.path().to_owned();
            (change.action, path, change.reason)
        })
        .collect();
    let expected = [
        (Action::Create, "/new", ""),
        (Action::Update, "/other", "differs in hint"),
        (Action::Delete, "/gone", "its pod is gone"),
        (
            Action::Delete,
            "/same",
            "the same as east.same, which stays",
        ),
        (
            Action::Keep,
            "/doubt",
            "nothing declares it, but something that may is broken",
        ),
        (
            Action::Keep,
            "/manual",
            "made by somebody else, differs in hint",
        ),
    ];
    let expected = expected.map(|(action, path, why)| (action, path.to_owned(), why.to_owned()));
    assert_eq!(told, expected);
}
