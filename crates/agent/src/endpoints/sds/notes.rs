//! What becomes of a stream's notes: figures and log lines.

use identity::Selectors;
use runtime::{Counter, Gauge, Metrics};
use tracing::{error, info, warn};

use super::Sds;
use crate::sds::{Certified, Note, Version};

/// The figures of all streams.
pub(super) struct Totals {
    pub(super) begun: Counter,
    pub(super) under_way: Gauge,
    pub(super) sent: Counter,
    names: Gauge,
    withheld: Gauge,
    unanswered: Counter,
    overdue: Counter,
    expired: Counter,
    rejected: [Counter; 4],
}

/// What one stream adds to the gauges.
pub(super) struct Figures {
    names: Gauge,
    withheld: Gauge,
    shown: (usize, usize),
}

/// Why a client rejects a secret, as far as its words tell.
#[derive(Clone, Copy)]
enum Reason {
    /// The key is not the certificate's.
    KeyMismatch,
    /// The certificate or its chain cannot be loaded.
    Certificate,
    /// The key cannot be loaded.
    Key,
    /// Anything else.
    Other,
}

impl Totals {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let rejected = |reason: Reason| {
            let labels = [("reason", reason.label())];
            metrics.counter("sds_api_responses_rejected", &labels)
        };
        Self {
            begun: metrics.counter("sds_api_connection", &[]),
            under_way: metrics.gauge("sds_api_connections", &[]),
            sent: metrics.counter("sds_api_responses_sent", &[]),
            names: metrics.gauge("sds_api_names", &[]),
            withheld: metrics.gauge("sds_api_names_withheld", &[]),
            unanswered: metrics.counter("sds_api_responses_unanswered", &[]),
            overdue: metrics.counter("sds_api_certificates_overdue", &[]),
            expired: metrics.counter("sds_api_certificates_expired", &[]),
            rejected: Reason::ALL.map(rejected),
        }
    }

    /// Counts what a note tells of.
    pub(super) fn count(&self, note: &Note) {
        match note {
            Note::Rejected { message, .. } => {
                self.rejected[Reason::of(message) as usize].increment();
            }
            Note::Unanswered { .. } => self.unanswered.increment(),
            Note::Overdue { .. } => self.overdue.increment(),
            Note::Expired { .. } => self.expired.increment(),
            Note::Withheld { .. } | Note::Wildcard | Note::ForeignType(_) => {}
        }
    }
}

impl Figures {
    pub(super) fn new(sds: &Sds) -> Self {
        Self {
            names: sds.figures.names.clone(),
            withheld: sds.figures.withheld.clone(),
            shown: (0, 0),
        }
    }

    /// Shows that the stream has so many names, and how many of them are withheld.
    pub(super) fn show(&mut self, names: usize, withheld: usize) {
        if self.shown == (names, withheld) {
            return;
        }
        self.names.add(difference(names, self.shown.0));
        self.withheld.add(difference(withheld, self.shown.1));
        self.shown = (names, withheld);
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        self.show(0, 0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand names")]
const fn difference(now: usize, before: usize) -> f64 {
    now as f64 - before as f64
}

impl Reason {
    const ALL: [Self; 4] = [Self::KeyMismatch, Self::Certificate, Self::Key, Self::Other];

    const fn label(self) -> &'static str {
        match self {
            Self::KeyMismatch => "key_mismatch",
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::Other => "other",
        }
    }

    /// By Envoy's words.
    fn of(message: &str) -> Self {
        let says = |words: &str| message.contains(words);
        if says("KEY_VALUES_MISMATCH") {
            Self::KeyMismatch
        } else if says("private key") {
            Self::Key
        } else if says("certificate chain") || says("trusted CA") {
            Self::Certificate
        } else {
            Self::Other
        }
    }
}

/// Whom a stream serves, for its log lines.
#[derive(Clone, Copy)]
pub(super) struct Teller<'a> {
    pub(super) caller: Option<u32>,
    pub(super) node: &'a str,
    pub(super) selectors: &'a Selectors,
}

impl Teller<'_> {
    pub(super) fn tell(self, note: &Note) {
        let Self {
            caller,
            node,
            selectors,
        } = self;
        match note {
            Note::Withheld { name, why } => {
                let name = &**name;
                info!(
                    caller,
                    node,
                    name,
                    ?selectors,
                    "the secret is not served: {why}"
                );
            }
            Note::Rejected {
                name,
                version,
                certificate,
                message,
            } => {
                let text = format!("Envoy rejects the secret and keeps the one before: {message}");
                self.warn(name, *version, certificate.as_deref(), &text);
            }
            Note::Unanswered { name, certificate } => {
                let text = "Envoy has neither accepted nor rejected the secret";
                self.warn(name, None, certificate.as_deref(), text);
            }
            Note::Overdue { name, certificate } => {
                let text =
                    "Envoy still uses the certificate, though it was offered another long ago";
                self.warn(name, None, Some(certificate), text);
            }
            Note::Expired { name, certificate } => {
                let (
                    name,
                    Told {
                        id,
                        serial,
                        expires,
                    },
                ) = (&**name, told(Some(certificate)));
                let text = "the certificate that Envoy uses has expired";
                error!(caller, node, name, id, serial, expires, "{text}");
            }
            Note::Wildcard => {
                let text = "Envoy asks for every secret at once, and gets none: it must name them";
                info!(caller, node, "{text}");
            }
            Note::ForeignType(type_url) => {
                let text = "the agent serves secrets alone, and does not answer for other types";
                info!(caller, node, type_url, "{text}");
            }
        }
    }

    fn warn(
        self,
        name: &str,
        version: Option<Version>,
        certificate: Option<&Certified>,
        text: &str,
    ) {
        let Self { caller, node, .. } = self;
        let Told {
            id,
            serial,
            expires,
        } = told(certificate);
        let version = version.map(|version| version.to_string());
        warn!(caller, node, name, version, id, serial, expires, "{text}");
    }
}

/// A certificate in log fields; absent ones are left out.
#[derive(Default)]
struct Told<'a> {
    id: Option<&'a str>,
    serial: Option<&'a str>,
    expires: Option<String>,
}

fn told(certificate: Option<&Certified>) -> Told<'_> {
    certificate.map_or_else(Told::default, |certificate| Told {
        id: Some(certificate.id.as_str()),
        serial: Some(&certificate.serial),
        expires: Some(runtime::log::rfc3339(certificate.expires_at)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_5_36_rejections_by_reason() {
        for (message, label) in [
            (
                "Failed to load private key from <inline>, Cause: KEY_VALUES_MISMATCH",
                "key_mismatch",
            ),
            (
                "Failed to load private key from <inline>, Cause: NO_START_LINE",
                "key",
            ),
            ("Failed to load incomplete private key", "key"),
            (
                "Failed to load certificate chain from <inline>",
                "certificate",
            ),
            (
                "Failed to load trusted CA certificates from <inline>",
                "certificate",
            ),
            ("", "other"),
        ] {
            assert_eq!(Reason::of(message).label(), label, "{message}");
        }
    }
}
