//! What one stream is subscribed to, and what its client holds.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Note, RequestError,
    asker::Seen,
    nonces::Nonces,
    shortened,
    subscription::{Held, Offer, Subscription},
};
use crate::{
    sds::{Absent, Form, MAX_NAMES, Name, Resource, Secrets, Version},
    workloads::WorkloadView,
};

/// The state that both kinds of stream share.
#[derive(Debug)]
pub struct Subscriptions {
    pub(super) secrets: Arc<Secrets>,
    view: Arc<WorkloadView>,
    pub(super) node: Option<Seen>,
    /// What the stream's own metadata say.
    pub(super) plain: Option<bool>,
    /// On a stream of many types, those that nobody serves here and that were told.
    pub(super) foreign: Option<BTreeSet<String>>,
    names: HashMap<Arc<str>, Subscription>,
    /// Names to look at, next last: bundles before certificates, so that a CA is known before it is used.
    due: Vec<Arc<str>>,
    /// Since when the client waits, and for the want of what; `None` as soon as it was given anything.
    waiting: Option<(SystemTime, Absent)>,
    nonces: Nonces,
    pub(super) notes: Vec<Note>,
    answer_times: Vec<Duration>,
}

/// What to send next.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) name: Arc<str>,
    pub(super) nonce: String,
    /// `None`: there is no such secret.
    pub(super) resource: Option<Resource>,
}

/// How an answer to a response relates to this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// It answers the newest response of some name.
    InTime,
    /// It answers the newest response of all once more.
    Again,
    /// It answers one that has been overtaken, by a newer one or by the end of the subscription.
    Late,
    /// Never sent here.
    Foreign,
}

impl Subscriptions {
    pub(super) fn new(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self {
        Self {
            secrets,
            view,
            node: None,
            plain: None,
            foreign: None,
            names: HashMap::new(),
            due: Vec::new(),
            waiting: None,
            nonces: Nonces::new(stream),
            notes: Vec::new(),
            answer_times: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// What the log should know since the last time.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// After how long the client answered, since the last time.
    pub fn take_answer_times(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.answer_times)
    }

    /// How many names are subscribed to.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a figure")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// How many of them are withheld.
    #[must_use]
    pub fn withheld(&self) -> usize {
        let told = self.names.values().filter(|one| one.told.is_some());
        told.count()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Subscribes to a name whose client holds `held`; anew, if it was before.
    pub(super) fn subscribe(&mut self, text: &str, held: Held) -> Result<(), RequestError> {
        if self.names.len() >= MAX_NAMES && !self.contains(text) {
            return Err(RequestError::TooManyNames);
        }
        let name: Arc<str> = text.into();
        let hint = self.node.as_ref().and_then(|seen| seen.hint.as_deref());
        let kind = Name::read_for(hint, text, self.secrets.options());
        self.names
            .insert(Arc::clone(&name), Subscription::new(kind, held));
        self.due.push(name);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, name: &str) {
        self.names.remove(name);
    }

    pub(super) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.names.retain(|name, _| wanted(name));
    }

    /// Whether a name is withheld for want of selectors, so that it is worth to look at the workload again.
    #[must_use]
    pub fn lacks_selectors(&self) -> bool {
        let mut told = self.names.values().filter_map(|one| one.told.as_ref());
        told.any(Absent::hangs_on_selectors)
    }

    /// Takes a newer view: every name is looked at again.
    pub fn on_view(&mut self, view: Arc<WorkloadView>) {
        self.view = view;
        self.due = self.names.keys().cloned().collect();
        self.sort();
    }

    /// Puts the names to look at in order; to be called after subscribing.
    pub(super) fn sort(&mut self) {
        let names = &self.names;
        let is_bundle = |name: &Arc<str>| names.get(name).is_some_and(|one| one.name.is_bundle());
        self.due
            .sort_unstable_by(|a, b| (is_bundle(a), b).cmp(&(is_bundle(b), a)));
    }

    /// Sends every secret once more.
    pub(super) fn resend(&mut self) {
        for subscription in self.names.values_mut() {
            subscription.forget();
        }
        self.on_view(Arc::clone(&self.view));
    }

    /// Looks again at what waits for other Envoys to accept a new authority.
    pub fn on_gate(&mut self) {
        let waits = |one: &Subscription| matches!(one.told, Some(Absent::Unconfirmed { .. }));
        let names = self.names.iter().filter(|(_, one)| waits(one));
        self.due.extend(names.map(|(name, _)| Arc::clone(name)));
        self.sort();
    }

    /// When to call [`Subscriptions::on_time`] next.
    #[must_use]
    pub fn wake_at(&self) -> Option<SystemTime> {
        let hold_max = self.secrets.options().hold_max;
        let waiting = self.waiting.as_ref().filter(|_| !hold_max.is_zero());
        let waiting = waiting.map(|(since, _)| *since + hold_max);
        let names = self.names.values().filter_map(Subscription::wake_at);
        names.chain(waiting).min()
    }

    /// Takes note of how late it is: what has expired, what was never answered.
    ///
    /// # Errors
    /// Why the client was given nothing for so long that it had better connect again.
    pub fn on_time(&mut self, now: SystemTime) -> Result<(), Absent> {
        for (name, subscription) in &mut self.names {
            subscription.on_time(name, now, &mut self.notes);
        }
        self.on_gate();
        let hold_max = self.secrets.options().hold_max;
        match &self.waiting {
            Some((since, why)) if !hold_max.is_zero() && *since + hold_max <= now => {
                Err(why.clone())
            }
            _ => Ok(()),
        }
    }

    /// The next thing to send; `removals`: whether a client can be told that there is no such secret.
    pub(super) fn next(&mut self, removals: bool, now: SystemTime) -> Option<Outgoing> {
        let form = self.style().form;
        while let Some(name) = self.due.pop() {
            let looked_up = self.look_up(&name, now);
            let Some(subscription) = self.names.get_mut(&name) else {
                continue;
            };
            let (resource, generation) = match looked_up {
                Ok((resource, generation)) => {
                    subscription.told = None;
                    (Some(resource), generation)
                }
                Err(why) => {
                    let certain = why.is_certain();
                    let denied = certain && self.secrets.denies(&subscription.name);
                    let had = matches!(subscription.held, Held::Version(_));
                    if subscription.told.as_ref() != Some(&why) {
                        subscription.told = Some(why.clone());
                        self.notes.push(Note::Withheld {
                            name: Arc::clone(&name),
                            why,
                        });
                    }
                    if denied && had && form == Form::Validator {
                        (Some(Resource::deny_all(&name)), None)
                    } else if certain && removals {
                        (None, None)
                    } else {
                        continue;
                    }
                }
            };
            let offer = Offer {
                resource: resource.as_ref(),
                generation,
            };
            let gate = self.secrets.gate();
            if let Some(nonce) = subscription.offer(&offer, gate, &mut self.nonces, now) {
                self.waiting = None;
                return Some(Outgoing {
                    name,
                    nonce,
                    resource,
                });
            }
        }
        self.wait(now);
        None
    }

    /// Takes the client's answer to a response.
    pub(super) fn on_answer(
        &mut self,
        nonce: &str,
        rejection: Option<&str>,
        now: SystemTime,
    ) -> Answered {
        let Some(number) = self.nonces.read(nonce) else {
            return Answered::Foreign;
        };
        let again =
            number == self.nonces.last && std::mem::replace(&mut self.nonces.answered, true);
        let (gate, rejected) = (self.secrets.gate(), rejection.is_some());
        let answered = self.names.iter_mut().find_map(|(name, one)| {
            let answer = one.on_answer(number, rejected, gate, now)?;
            Some((Arc::clone(name), answer))
        });
        let Some((name, answer)) = answered else {
            return if again {
                Answered::Again
            } else {
                Answered::Late
            };
        };
        self.answer_times.push(answer.after);
        if let (Some(message), Some((version, certificate))) = (rejection, answer.rejected) {
            self.notes.push(Note::Rejected {
                name: Arc::clone(&name),
                version,
                certificate,
                message: shortened(message),
            });
            // What came between may be what the client holds already, or something new.
            self.due.push(name);
        } else {
            self.on_gate();
        }
        Answered::InTime
    }

    /// The version of all that the client holds, taking for granted that it accepts what is on its way.
    pub(super) fn version(&self) -> Version {
        let held = self.names.iter().filter_map(|(name, one)| match one.held {
            Held::Version(version) => Some((&**name, version)),
            Held::Nothing | Held::Removed => None,
        });
        let mut held: Vec<(&str, Version)> = held.collect();
        held.sort_unstable_by_key(|(name, _)| *name);
        Version::of_set(held)
    }

    /// Takes for granted that the client holds `version` of all names, if that is what they are now.
    pub(super) fn resume(&mut self, version: Version, now: SystemTime) {
        if let [subscription] = &mut *self.names.values_mut().collect::<Vec<_>>() {
            // Alone it is the secret's own, and counts once that is there.
            subscription.held = Held::Version(version);
            return;
        }
        let version_of = |name| Some(self.resource(name, now).ok()?.version());
        let mut current: Vec<(Arc<str>, Version)> = self
            .names
            .keys()
            .filter_map(|name| Some((Arc::clone(name), version_of(name)?)))
            .collect();
        current.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if Version::of_set(current.iter().map(|(name, one)| (&**name, *one))) != version {
            return;
        }
        for (name, version) in current {
            if let Some(subscription) = self.names.get_mut(&name) {
                subscription.held = Held::Version(version);
            }
        }
    }

    /// Remembers since when the client waits: it has names, and was given nothing for any of them.
    fn wait(&mut self, now: SystemTime) {
        let waits = self.names.values().all(|one| one.held == Held::Nothing);
        let why = self.names.values().find_map(|one| one.told.clone());
        self.waiting = match (why, &self.waiting) {
            (Some(why), Some((since, _))) if waits => Some((*since, why)),
            (Some(why), None) if waits => Some((now, why)),
            _ => None,
        };
    }

    /// A secret that may go out now, with the generation of the own bundle in it.
    fn look_up(&self, name: &Arc<str>, now: SystemTime) -> Result<(Resource, Option<u64>), Absent> {
        let resource = self.resource(name, now)?;
        let (gate, bundle) = (self.secrets.gate(), &self.view.bundle);
        let generation = gate.see(bundle, now);
        if let Some(certificate) = resource.certificate_info() {
            let issuer = certificate.issuer.as_deref();
            let closed = issuer.and_then(|issuer| gate.closed_until(issuer, now));
            return match closed {
                Some(until) => Err(Absent::Unconfirmed {
                    id: certificate.id.clone(),
                    until,
                }),
                None => Ok((resource, None)),
            };
        }
        let own = self.names.get(name).is_some_and(|one| match &one.name {
            Name::Bundle(trust_domain) => *trust_domain == bundle.trust_domain,
            Name::Allowed(list) => list.trust_domains().contains(&&bundle.trust_domain),
            _ => true,
        });
        Ok((resource, own.then_some(generation)))
    }

    fn resource(&self, name: &Arc<str>, now: SystemTime) -> Result<Resource, Absent> {
        let subscription = self.names.get(name).ok_or(Absent::Unknown)?;
        self.secrets
            .lookup(&self.view, (name, &subscription.name), self.style(), now)
    }
}
