//! The requirements that hang on time, or on other streams.

use std::time::Duration;

use super::{
    subscription::ANSWER_WITHIN,
    tests::{API, TRUST_DOMAIN, WEB, ack, all, all_delta, ask, delta, nack, sotw, subscribe},
    *,
};
use crate::{
    sds::{
        Options, Secrets,
        fixtures::{DAY, Domain, now, secret},
    },
    workloads::WorkloadView,
};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn with(options: Options) -> Arc<Secrets> {
    Arc::new(Secrets::new(options))
}

pub(super) fn session(secrets: &Arc<Secrets>, view: &WorkloadView) -> StreamSecrets {
    StreamSecrets::new(Arc::clone(secrets), Arc::new(view.clone()), 7)
}

/// A pause after which nothing is left but the alarm at this time.
fn pass(session: &mut StreamSecrets, time: std::time::SystemTime) -> Result<Vec<Note>, Absent> {
    assert_eq!(session.next(now()), None);
    let state = session.subscriptions_mut();
    assert_eq!(state.wake_at(), Some(time));
    state.on_time(time - Duration::from_millis(1)).unwrap();
    assert_eq!(state.take_notes(), []);
    let result = state.on_time(time);
    let notes = state.take_notes();
    result.map(|()| notes)
}

#[test]
fn s_5_05_a_stream_that_was_given_nothing_ends_after_hold_max() {
    let domain = Domain::new("example.org");
    let hold_max = Options::default().hold_max;
    let secrets = with(Options::default());
    let mut held = session(&secrets, &domain.view(&["/web"]));
    held.on_request(&ask(&[API]), now()).unwrap();
    assert_eq!(held.next(now()), None);
    held.take_notes();
    let why = pass(&mut held, now() + hold_max).unwrap_err();
    assert!(why.to_string().contains(API), "{why}");

    // One name that is served keeps the stream, whatever becomes of the others.
    let mut served = session(&secrets, &domain.view(&["/web"]));
    served.on_request(&ask(&[API, WEB]), now()).unwrap();
    assert_eq!(all(&mut served).1, [WEB]);
    assert_eq!(
        served.subscriptions_mut().on_time(now() + 2 * hold_max),
        Ok(())
    );
    // And what came in time counts.
    let mut late = session(&secrets, &domain.view(&[]));
    late.on_request(&ask(&[WEB]), now()).unwrap();
    assert_eq!(late.next(now()), None);
    late.on_view(Arc::new(domain.view(&["/web"])));
    assert_eq!(all(&mut late).1, [WEB]);
    assert_eq!(late.subscriptions_mut().on_time(now() + hold_max), Ok(()));
    // A definite answer is an answer.
    let mut told = delta(&domain.view(&[]));
    told.on_request(&subscribe(&[WEB]), now()).unwrap();
    assert_eq!(all_delta(&mut told).1, [format!("-{WEB}")]);
    assert_eq!(
        told.subscriptions_mut().on_time(now() + 2 * hold_max),
        Ok(())
    );
}

#[test]
fn s_5_05_hold_max_can_be_for_ever() {
    let secrets = with(Options {
        hold_max: Duration::ZERO,
        ..Options::default()
    });
    let mut held = session(&secrets, &Domain::new("example.org").view(&[]));
    held.on_request(&ask(&[WEB]), now()).unwrap();
    assert_eq!(held.next(now()), None);
    assert_eq!(held.subscriptions().wake_at(), None);
    assert_eq!(held.subscriptions_mut().on_time(now() + 365 * DAY), Ok(()));
}

#[test]
fn s_5_39_a_response_without_an_answer_is_told_once() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web"]));
    session.on_request(&ask(&[WEB]), now()).unwrap();
    all(&mut session);
    let notes = pass(&mut session, now() + ANSWER_WITHIN).unwrap();
    assert!(
        matches!(&notes[..], [Note::Unanswered { name, certificate: Some(_) }] if **name == *WEB),
        "{notes:?}"
    );
    assert_eq!(session.subscriptions().wake_at(), None);
}

#[test]
fn s_5_36_the_time_an_answer_takes_is_known() {
    let domain = Domain::new("example.org");
    let mut session = sotw(&domain.view(&["/web"]));
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let sent = session.next(now()).unwrap();
    session
        .on_request(&ack(&sent, &[WEB]), now() + SECOND)
        .unwrap();
    assert_eq!(session.subscriptions_mut().take_answer_times(), [SECOND]);
    assert_eq!(
        session.subscriptions_mut().take_answer_times(),
        [Duration::ZERO; 0]
    );
}

#[test]
fn s_5_18_a_certificate_that_expires_with_its_client_raises_the_alarm() {
    let domain = Domain::new("example.org");
    let mut view = domain.view(&["/web"]);
    let expires_at = view.identities[0].svid.expires_at();
    let mut session = sotw(&view);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let sent = session.next(now()).unwrap();
    session.on_request(&ack(&sent, &[WEB]), now()).unwrap();
    // The server is away: no newer one comes, and the stream stays.
    let gone = view.identities.remove(0);
    view.pending.push(gone.entry);
    session.on_view(Arc::new(view.clone()));
    assert_eq!(session.next(now()), None);
    session.take_notes();
    let notes = pass(&mut session, expires_at).unwrap();
    assert!(
        matches!(&notes[..], [Note::Expired { certificate, .. }] if certificate.id.as_str() == WEB),
        "{notes:?}"
    );
    assert_eq!(session.subscriptions().wake_at(), None);
    // And it goes on where it left off.
    session.on_view(Arc::new(domain.view(&["/web"])));
    assert_eq!(all(&mut session).1, [WEB]);
}

#[test]
fn s_5_18_after_a_restart_the_certificate_of_before_counts_too() {
    let domain = Domain::new("example.org");
    let view = domain.view(&["/web"]);
    let mut session = sotw(&view);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let mut back = ask(&[WEB]);
    back.version_info = session.next(now()).unwrap().version_info;
    let mut session = sotw(&view);
    session.on_request(&back, now()).unwrap();
    assert_eq!(session.next(now()), None);
    let expires_at = view.identities[0].svid.expires_at();
    assert_eq!(session.subscriptions().wake_at(), Some(expires_at));
}

#[test]
fn s_5_38_a_rotation_that_is_not_taken_is_told_while_there_is_time() {
    let domain = Domain::new("example.org");
    let first = domain.view(&["/web"]);
    let left = first.identities[0].svid.expires_at().duration_since(now());
    let half = now() + left.unwrap() / 2;
    let mut session = sotw(&first);
    session.on_request(&ask(&[WEB]), now()).unwrap();
    let sent = session.next(now()).unwrap();
    session.on_request(&ack(&sent, &[WEB]), now()).unwrap();
    session.on_view(Arc::new(domain.view(&["/web"])));
    let rotated = session.next(now()).unwrap();
    session.on_request(&nack(&rotated, &[WEB]), now()).unwrap();
    assert_eq!(session.next(now()), None);
    session.take_notes();
    let notes = pass(&mut session, half).unwrap();
    assert!(matches!(&notes[..], [Note::Overdue { .. }]), "{notes:?}");
    // One that is taken ends it.
    session.on_view(Arc::new(domain.view(&["/web"])));
    let third = session.next(now()).unwrap();
    session.on_request(&ack(&third, &[WEB]), now()).unwrap();
    assert!(session.subscriptions().wake_at() > Some(half));
}

/// Two Envoys of one node, of which one is slow with the new authority.
#[test]
fn s_5_28_a_new_authority_is_everywhere_before_its_certificates() {
    let (old, new) = (Domain::new("example.org"), Domain::new("example.org"));
    let secrets = with(Options::default());
    let before = old.view(&["/web"]);
    let mut both = (*old.bundle).clone();
    both.x509_authorities
        .push(new.bundle.x509_authorities[0].clone());
    let mut after = new.view(&["/web"]);
    after.bundle = Arc::new(both);

    let mut bundle = session(&secrets, &before);
    bundle.on_request(&ask(&[TRUST_DOMAIN]), now()).unwrap();
    let sent = bundle.next(now()).unwrap();
    bundle
        .on_request(&ack(&sent, &[TRUST_DOMAIN]), now())
        .unwrap();
    let mut certificate = session(&secrets, &before);
    certificate.on_request(&ask(&[WEB]), now()).unwrap();
    let sent = certificate.next(now()).unwrap();
    certificate.on_request(&ack(&sent, &[WEB]), now()).unwrap();

    certificate.on_view(Arc::new(after.clone()));
    assert_eq!(certificate.next(now()), None);
    let until = now() + Options::default().authority_ack_timeout;
    assert_eq!(certificate.subscriptions().wake_at(), Some(until));
    let changes = secrets.gate_changes();
    bundle.on_view(Arc::new(after));
    let sent = bundle.next(now()).unwrap();
    assert!(!changes.has_changed().unwrap());
    bundle
        .on_request(&ack(&sent, &[TRUST_DOMAIN]), now())
        .unwrap();
    assert!(changes.has_changed().unwrap());
    certificate.subscriptions_mut().on_gate();
    assert_eq!(all(&mut certificate).1, [WEB]);
}

#[test]
fn s_5_28_who_never_answers_holds_nobody_up_for_long() {
    let (old, new) = (Domain::new("example.org"), Domain::new("example.org"));
    let secrets = with(Options::default());
    let mut silent = session(&secrets, &old.view(&["/web"]));
    silent.on_request(&ask(&[TRUST_DOMAIN]), now()).unwrap();
    silent.next(now()).unwrap();
    let mut waits = session(&secrets, &new.view(&["/web"]));
    waits.on_request(&ask(&[WEB]), now()).unwrap();
    assert_eq!(waits.next(now()), None);
    let later = waits.subscriptions().wake_at().unwrap();
    waits.subscriptions_mut().on_time(later).unwrap();
    let sent = waits.next(later).unwrap();
    assert_eq!(secret(&sent.resources[0]).name, WEB);
}

/// An Envoy whose listener drains asks for nothing any more, and still serves for ten minutes and longer.
#[test]
fn s_5_49_a_silent_subscription_still_rotates() {
    let (domain, secrets) = (Domain::new("example.org"), with(Options::default()));
    let mut stream = session(&secrets, &domain.view(&["/web"]));
    stream.on_request(&ask(&[WEB]), now()).unwrap();
    let mut last = stream.next(now()).unwrap();
    for minutes in [5, 10, 60] {
        stream.on_request(&ack(&last, &[WEB]), now()).unwrap();
        let later = now() + minutes * 60 * SECOND;
        assert_eq!(stream.subscriptions_mut().on_time(later), Ok(()));
        assert_eq!(stream.next(later), None);
        stream.on_view(Arc::new(domain.view(&["/web"])));
        let next = stream.next(later).unwrap();
        assert_ne!(next.version_info, last.version_info);
        last = next;
    }
}
