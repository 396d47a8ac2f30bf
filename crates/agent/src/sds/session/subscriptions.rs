//! What one stream is subscribed to, and what its client holds.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use proto::discovery::Node;

use super::{Note, RequestError, describe, shortened};
use crate::{
    sds::{Absent, Form, MAX_NAMES, Name, Resource, Secrets, Version},
    workloads::WorkloadView,
};

/// The state that both kinds of stream share.
#[derive(Debug)]
pub(super) struct Subscriptions {
    secrets: Arc<Secrets>,
    view: Arc<WorkloadView>,
    node: Option<Seen>,
    names: HashMap<Arc<str>, Subscription>,
    /// Names to look at, next last: bundles before certificates, so that a CA is known before it is used.
    due: Vec<Arc<str>>,
    nonces: Nonces,
    notes: Vec<Note>,
}

/// What is kept of a node's description of itself.
#[derive(Debug)]
struct Seen {
    form: Form,
    described: String,
}

#[derive(Debug)]
struct Subscription {
    name: Name,
    /// What the client holds, taking for granted that it accepts what is on its way.
    held: Held,
    /// What the client held before the response that it has not answered yet.
    in_flight: Option<InFlight>,
    /// What the client rejected; not sent again.
    rejected: Option<Version>,
    /// The last reason told.
    told: Option<Absent>,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    nonce: u64,
    before: Held,
}

/// What a client holds under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing, as far as known.
    Nothing,
    /// This version.
    Version(Version),
    /// The knowledge that there is none.
    Removed,
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

/// Makes and reads nonces: a part of the stream's own, then a number that grows.
#[derive(Debug)]
struct Nonces {
    stream: u64,
    last: u64,
    /// Whether the client has answered the last one.
    answered: bool,
}

impl Subscriptions {
    pub(super) fn new(secrets: Arc<Secrets>, view: Arc<WorkloadView>, stream: u64) -> Self {
        Self {
            secrets,
            view,
            node: None,
            names: HashMap::new(),
            due: Vec::new(),
            nonces: Nonces {
                stream,
                last: 0,
                answered: false,
            },
            notes: Vec::new(),
        }
    }

    /// Remembers who asks, from the first request that says it.
    pub(super) fn introduce(&mut self, node: Option<&Node>) {
        let Some(node) = node.filter(|_| self.node.is_none()) else {
            return;
        };
        self.node = Some(Seen {
            form: Form::of(Some(node), self.secrets.options()),
            described: describe(node),
        });
    }

    pub(super) fn node(&self) -> Option<&str> {
        self.node.as_ref().map(|node| node.described.as_str())
    }

    pub(super) fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
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
        let subscription = Subscription {
            name: Name::read(text, self.secrets.options()),
            held,
            in_flight: None,
            rejected: None,
            told: None,
        };
        self.names.insert(Arc::clone(&name), subscription);
        self.due.push(name);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, name: &str) {
        self.names.remove(name);
    }

    pub(super) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.names.retain(|name, _| wanted(name));
    }

    /// Whether a name is withheld for want of selectors.
    pub(super) fn lacks_selectors(&self) -> bool {
        let mut told = self.names.values().filter_map(|one| one.told.as_ref());
        told.any(Absent::hangs_on_selectors)
    }

    /// Takes a newer view: every name is looked at again.
    pub(super) fn on_view(&mut self, view: Arc<WorkloadView>) {
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
            subscription.held = Held::Nothing;
        }
        self.on_view(Arc::clone(&self.view));
    }

    /// The next thing to send; `removals`: whether a client can be told that there is no such secret.
    pub(super) fn next(&mut self, removals: bool, now: SystemTime) -> Option<Outgoing> {
        while let Some(name) = self.due.pop() {
            let looked_up = self.look_up(&name, now);
            let Some(subscription) = self.names.get_mut(&name) else {
                continue;
            };
            let (held, resource) = match looked_up {
                Ok(resource) => {
                    subscription.told = None;
                    (Held::Version(resource.version()), Some(resource))
                }
                Err(why) => {
                    let certain = removals && why.is_certain();
                    if subscription.told.as_ref() != Some(&why) {
                        subscription.told = Some(why.clone());
                        self.notes.push(Note::Withheld {
                            name: Arc::clone(&name),
                            why,
                        });
                    }
                    if !certain {
                        continue;
                    }
                    (Held::Removed, None)
                }
            };
            if let Some(nonce) = subscription.send(held, &mut self.nonces) {
                return Some(Outgoing {
                    name,
                    nonce,
                    resource,
                });
            }
        }
        None
    }

    /// Takes the client's answer to a response.
    pub(super) fn on_answer(&mut self, nonce: &str, rejection: Option<&str>) -> Answered {
        let Some(number) = self.nonces.read(nonce) else {
            return Answered::Foreign;
        };
        let again =
            number == self.nonces.last && std::mem::replace(&mut self.nonces.answered, true);
        let awaits = |one: &Subscription| one.in_flight.is_some_and(|sent| sent.nonce == number);
        let awaiting = self.names.iter_mut().find(|(_, one)| awaits(one));
        let answered = awaiting.and_then(|(name, one)| Some((name, one.in_flight.take()?, one)));
        let Some((name, sent, subscription)) = answered else {
            return if again {
                Answered::Again
            } else {
                Answered::Late
            };
        };
        if let Some(message) = rejection {
            let version = subscription.reject(sent.before);
            self.notes.push(Note::Rejected {
                name: Arc::clone(name),
                version,
                message: shortened(message),
            });
            // What came between may be what the client holds already, or something new.
            self.due.push(Arc::clone(name));
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
        let mut current: Vec<(Arc<str>, Version)> = self
            .names
            .keys()
            .filter_map(|name| Some((Arc::clone(name), self.look_up(name, now).ok()?.version())))
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

    fn look_up(&self, name: &Arc<str>, now: SystemTime) -> Result<Resource, Absent> {
        let subscription = self.names.get(name).ok_or(Absent::Unknown)?;
        let form = self
            .node
            .as_ref()
            .map_or_else(|| Form::of(None, self.secrets.options()), |node| node.form);
        self.secrets
            .lookup(&self.view, (name, &subscription.name), form, now)
    }
}

impl Subscription {
    /// The nonce under which `held` goes out; `None` when the client has it or has refused it.
    fn send(&mut self, held: Held, nonces: &mut Nonces) -> Option<String> {
        let refused = matches!(held, Held::Version(version) if self.rejected == Some(version));
        if held == self.held || refused {
            return None;
        }
        let (nonce, text) = nonces.next();
        // With an earlier one unanswered, nobody can say what the client holds if it rejects this.
        let before = match self.in_flight {
            None => self.held,
            Some(_) => Held::Nothing,
        };
        self.in_flight = Some(InFlight { nonce, before });
        self.held = held;
        self.rejected = None;
        Some(text)
    }

    /// The version the client does not take; it goes on with what it had before.
    fn reject(&mut self, before: Held) -> Option<Version> {
        let version = match self.held {
            Held::Version(version) => Some(version),
            Held::Nothing | Held::Removed => None,
        };
        self.held = before;
        self.rejected = version;
        version
    }
}

impl Nonces {
    fn next(&mut self) -> (u64, String) {
        self.last += 1;
        self.answered = false;
        (self.last, format!("{:016x}-{}", self.stream, self.last))
    }

    /// The number in a nonce of this stream.
    fn read(&self, nonce: &str) -> Option<u64> {
        let (stream, number) = nonce.split_once('-')?;
        let number = number.parse().ok().filter(|number| *number <= self.last)?;
        (u64::from_str_radix(stream, 16) == Ok(self.stream)).then_some(number)
    }
}
