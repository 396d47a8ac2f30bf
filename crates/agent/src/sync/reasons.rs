//! Why SVIDs are replaced, in SPIRE's figures.

use std::{sync::Arc, time::SystemTime};

use identity::RegistrationEntry;
use runtime::{Call, Metrics};

use crate::{
    cache::{Cache, is_tainted},
    workloads::living::as_f64,
};

/// How many of the SVIDs that are about to be asked for replace one, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reasons {
    /// The time of renewal has come.
    expiring: usize,
    /// The authority is tainted.
    tainted: usize,
    /// The entry changed.
    outdated: usize,
}

impl Reasons {
    pub(super) fn of(cache: &Cache, due: &[Arc<RegistrationEntry>], now: SystemTime) -> Self {
        let mut reasons = Self::default();
        for (svid, in_time) in due.iter().filter_map(|entry| cache.svid(&entry.id, now)) {
            let count = if is_tainted(cache.bundle(), svid) {
                &mut reasons.tainted
            } else if in_time {
                &mut reasons.expiring
            } else {
                &mut reasons.outdated
            };
            *count += 1;
        }
        reasons
    }

    /// Samples what there is; begins the call that replaces tainted ones, if there are any.
    pub(super) fn tell(&self, metrics: &Metrics) -> Option<Call> {
        for (name, count) in [
            ("cache_manager_expiring_svids", self.expiring),
            ("cache_manager_outdated_svids", self.outdated),
            ("cache_manager_tainted_x509_svids_workload", self.tainted),
        ] {
            if count > 0 {
                metrics.sample(name, &[], as_f64(count));
            }
        }
        let process = "cache_manager_workload_process_tainted_x509_svids";
        (self.tainted > 0).then(|| metrics.call(process, &[]))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::Update;
    use crate::fixtures::{CA, entry, noon, selectors, svid, trust_domain};
    use crate::svid::Rotation;

    fn with(bundle: Option<identity::Bundle>, entry: Option<&RegistrationEntry>) -> Update {
        Update {
            bundle: bundle.map(Arc::new),
            upserted: entry.cloned().map(Arc::new).into_iter().collect(),
            ..Update::default()
        }
    }

    fn due(cache: &mut Cache, now: SystemTime) -> Reasons {
        let due = cache.take_due(now, 9);
        assert_eq!(due.len(), 1);
        Reasons::of(cache, &due, now)
    }

    #[test]
    fn svids_are_counted_by_why_they_are_replaced() {
        let mut cache = Cache::new(&trust_domain(), 9, Rotation::default());
        cache.watch(&selectors(&["unix:uid:1"]));
        let mut web = entry("web", &["unix:uid:1"]);
        cache.apply(with(Some(CA.bundle()), Some(&web)));
        assert_eq!(due(&mut cache, noon()), Reasons::default(), "a first one");
        cache.issued(&web.id, 0, svid("/web"), noon());
        web.dns_names = vec!["web".to_owned()];
        web.revision = 1;
        cache.apply(with(None, Some(&web)));
        let outdated = Reasons {
            outdated: 1,
            ..Reasons::default()
        };
        assert_eq!(due(&mut cache, noon()), outdated);
        cache.issued(&web.id, 1, svid("/web"), noon());
        let expiring = Reasons {
            expiring: 1,
            ..Reasons::default()
        };
        let late = noon() + Duration::from_mins(59);
        assert_eq!(due(&mut cache, late), expiring);
        cache.issued(&web.id, 1, svid("/web"), noon());
        let mut bundle = CA.bundle();
        bundle.x509_authorities[0].tainted = true;
        cache.apply(with(Some(bundle), None));
        let tainted = due(&mut cache, noon());
        let metrics = Metrics::with_labels("a", &[]);
        tainted.tell(&metrics).unwrap().finish(tonic::Code::Ok);
        let text = metrics.render();
        for line in [
            "a_cache_manager_tainted_x509_svids_workload_sum 1\n",
            "a_cache_manager_workload_process_tainted_x509_svids{status=\"OK\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} not in:\n{text}");
        }
        assert!(outdated.tell(&metrics).is_none());
    }
}
