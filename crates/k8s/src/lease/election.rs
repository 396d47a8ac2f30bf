//! Who leads, as a pure core: it is told what it saw and when, and says what to write.

use std::time::SystemTime;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::LeaseConfig;

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Somebody else leads.
    Follow,
    /// There is no lease: make it.
    Create(Lease),
    /// Renew it, or take it over.
    Replace(Lease),
}

/// One candidate's view of a lease.
#[derive(Debug)]
pub(super) struct Election {
    config: LeaseConfig,
    /// The lease as last seen, and since when it is so.
    seen: Option<(LeaseSpec, Instant)>,
    /// The lease as we last wrote it, and when that was asked for.
    held: Option<(Lease, Instant)>,
}

impl Election {
    pub(super) const fn new(config: LeaseConfig) -> Self {
        Self {
            config,
            seen: None,
            held: None,
        }
    }

    /// What to do about the lease that is there.
    pub(super) fn step(&mut self, found: Option<Lease>, now: Instant, wall: SystemTime) -> Step {
        let Some(mut lease) = found else {
            let metadata = ObjectMeta {
                name: Some(self.config.name.clone()),
                namespace: Some(self.config.namespace.clone()),
                ..ObjectMeta::default()
            };
            let spec = Some(self.spec(None, wall));
            return Step::Create(Lease { metadata, spec });
        };
        let current = lease.spec.take().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != current) {
            self.seen = Some((current.clone(), now));
        }
        let holder = current.holder_identity.as_deref().unwrap_or_default();
        let is_ours = holder == self.config.identity;
        if !is_ours {
            self.held = None;
        }
        if !is_ours && !holder.is_empty() && !self.is_stale(&current, now) {
            return Step::Follow;
        }
        lease.spec = Some(self.spec(Some(&current), wall));
        Step::Replace(lease)
    }

    /// The lease was written as [`Election::step`] said, asked for at `asked`.
    pub(super) fn held(&mut self, lease: Lease, asked: Instant) {
        self.seen = lease.spec.clone().map(|spec| (spec, asked));
        self.held = Some((lease, asked));
    }

    /// The lease that we hold, renewed: no look at it is needed first.
    pub(super) fn renewal(&self, now: Instant, wall: SystemTime) -> Option<Lease> {
        let (lease, _) = self.held.as_ref().filter(|_| self.leads(now))?;
        let spec = Some(self.spec(lease.spec.as_ref(), wall));
        let metadata = lease.metadata.clone();
        Some(Lease { metadata, spec })
    }

    /// Whether this candidate may act.
    pub(super) fn leads(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now < deadline)
    }

    /// Until when it may act without another renewal.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (_, asked) = self.held.as_ref()?;
        Some(*asked + self.config.renew_deadline)
    }

    /// The lease given back, for whoever wants it.
    pub(super) fn release(&mut self, wall: SystemTime) -> Option<Lease> {
        let (mut lease, _) = self.held.take()?;
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = micro_time(wall);
        Some(lease)
    }

    /// By the holder's own duration: it may be configured otherwise than we are.
    fn is_stale(&self, current: &LeaseSpec, now: Instant) -> bool {
        let own = self.config.duration;
        let duration = current
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(own, std::time::Duration::from_secs);
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        now.duration_since(since) >= duration
    }

    fn spec(&self, current: Option<&LeaseSpec>, wall: SystemTime) -> LeaseSpec {
        let ours = Some(self.config.identity.as_str());
        let held = current.filter(|spec| spec.holder_identity.as_deref() == ours);
        let before = current.and_then(|spec| spec.lease_transitions);
        let transitions = match (held, before) {
            (Some(_), before) => before.unwrap_or_default(),
            (None, before) => before.map_or(0, |before| before.saturating_add(1)),
        };
        let acquired = held.and_then(|spec| spec.acquire_time.clone());
        let seconds = self.config.duration.as_secs().max(1);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: acquired.or_else(|| micro_time(wall)),
            renew_time: micro_time(wall),
            lease_transitions: Some(transitions),
            ..current.cloned().unwrap_or_default()
        }
    }
}

fn micro_time(wall: SystemTime) -> Option<MicroTime> {
    Timestamp::try_from(wall).ok().map(MicroTime)
}
