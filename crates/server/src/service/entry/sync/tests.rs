use std::time::UNIX_EPOCH;

use identity::{EntryId, SpiffeId};

use super::*;

fn entries(count: usize) -> Entries {
    let id = |path: &str| SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap();
    (0..count)
        .map(|number| {
            Arc::new(RegistrationEntry {
                revision: i64::try_from(number).unwrap(),
                hint: "hint".to_owned(),
                ..RegistrationEntry::new(
                    EntryId::new(&format!("e{number:05}")).unwrap(),
                    id("/workload"),
                    id("/agent"),
                    UNIX_EPOCH,
                )
            })
        })
        .collect()
}

fn first(mask: Option<EntryMask>) -> SyncAuthorizedEntriesRequest {
    SyncAuthorizedEntriesRequest {
        output_mask: mask,
        ids: Vec::new(),
    }
}

fn ask(ids: &[usize]) -> SyncAuthorizedEntriesRequest {
    SyncAuthorizedEntriesRequest {
        output_mask: None,
        ids: ids.iter().map(|number| format!("e{number:05}")).collect(),
    }
}

const REVISIONS: Option<EntryMask> = Some(EntryMask {
    spiffe_id: false,
    parent_id: false,
    selectors: false,
    x509_svid_ttl: false,
    federates_with: false,
    admin: false,
    downstream: false,
    expires_at: false,
    dns_names: false,
    revision_number: true,
    store_svid: false,
    jwt_svid_ttl: false,
    hint: false,
    created_at: false,
    additional_attributes: false,
});

fn pages(session: &mut Session) -> Vec<Page> {
    std::iter::from_fn(|| session.next_page()).collect()
}

#[test]
fn up_to_500_go_whole_and_the_stream_ends() {
    for count in [0, 1, 500] {
        let mut session = Session::new(entries(count));
        assert_eq!(session.next_page(), None, "nothing before the agent asks");
        session.on_request(first(REVISIONS)).unwrap();
        let pages = pages(&mut session);
        let [page] = &pages[..] else {
            panic!("one page for {count}")
        };
        assert_eq!(
            (page.entries.len(), page.entry_revisions.len(), page.more),
            (count, 0, false)
        );
        assert!(
            page.entries.iter().all(|entry| entry.hint.is_empty()),
            "masked"
        );
        assert!(session.is_over());
    }
}

#[test]
fn of_more_the_revisions_go_first_by_pages() {
    let mut session = Session::new(entries(1200));
    session.on_request(first(None)).unwrap();
    let pages = pages(&mut session);
    let shape: Vec<_> = pages
        .iter()
        .map(|page| (page.entry_revisions.len(), page.entries.len(), page.more))
        .collect();
    assert_eq!(shape, [(500, 0, true), (500, 0, true), (200, 0, false)]);
    let revisions = pages.iter().flat_map(|page| &page.entry_revisions);
    assert!(
        revisions
            .zip(0_i64..)
            .all(|(revision, number)| revision.revision_number == number)
    );
    assert!(!session.is_over(), "the agent may ask");
}

#[test]
fn then_what_is_asked_for_sorted_and_by_pages() {
    let mut session = Session::new(entries(1500));
    session.on_request(first(None)).unwrap();
    pages(&mut session);
    session.on_request(ask(&[9, 3, 3, 99_999])).unwrap();
    let asked = pages(&mut session);
    let [page] = &asked[..] else {
        panic!("one page")
    };
    let ids: Vec<_> = page.entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!((ids, page.more), (vec!["e00003", "e00009"], false));

    let all: Vec<usize> = (0..1100).collect();
    session.on_request(ask(&all)).unwrap();
    let shape: Vec<_> = pages(&mut session)
        .iter()
        .map(|page| (page.entries.len(), page.more))
        .collect();
    assert_eq!(shape, [(500, true), (500, true), (100, false)]);

    // Whoever asks for nothing that is there hears so, and does not wait for ever.
    session.on_request(ask(&[77_777])).unwrap();
    let nothing = pages(&mut session);
    assert_eq!(nothing, [Page::default()]);
}

#[test]
fn what_the_protocol_does_not_have_is_refused() {
    let refused = |session: &mut Session, request| {
        let error = session.on_request(request).unwrap_err();
        assert!(matches!(error, RpcError::InvalidArgument(_)), "{error}");
    };
    refused(&mut Session::new(entries(1)), ask(&[1]));
    let without = REVISIONS.map(|mask| EntryMask {
        revision_number: false,
        ..mask
    });
    refused(&mut Session::new(entries(1)), first(without));
    let mut session = Session::new(entries(501));
    session.on_request(first(None)).unwrap();
    pages(&mut session);
    refused(&mut session, first(REVISIONS));
}
