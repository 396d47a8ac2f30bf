//! `Debug` for messages that hold keys or tokens: the secret field prints `<redacted>`.
//!
//! build.rs leaves these messages without a derived `Debug`, so a forgotten one does not compile.

use std::fmt;

use crate::spire::api::agent::delegatedidentity::v1::X509svidWithKey;
use crate::spire::api::server::agent::v1::CreateJoinTokenRequest;
use crate::spire::api::types;
use crate::workload;

macro_rules! redacted {
    ($($message:path { $($shown:ident),* ; $($hidden:ident),+ })+) => {
        $(impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Names all fields, so that a new one is not forgotten.
                let Self { $($shown,)* $($hidden: _,)+ } = self;
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($hidden), &format_args!("<redacted>")))+
                    .finish()
            }
        })+
    };
}

redacted! {
    workload::X509svid { spiffe_id, x509_svid, bundle, hint; x509_svid_key }
    workload::Jwtsvid { spiffe_id, hint; svid }
    workload::ValidateJwtsvidRequest { audience; svid }
    workload::Witsvid { spiffe_id, wit_svid, hint; wit_svid_key }
    types::Jwtsvid { id, expires_at, issued_at, hint; token }
    types::Witsvid { id, expires_at, issued_at, hint; token }
    types::JoinToken { expires_at; value }
    types::AttestationData { r#type; payload }
    CreateJoinTokenRequest { ttl, agent_id; token }
    X509svidWithKey { x509_svid; x509_svid_key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let svid = workload::X509svid {
            spiffe_id: "spiffe://example.org/web".into(),
            x509_svid_key: b"opensesame"[..].into(),
            ..Default::default()
        };
        let answer = workload::X509svidResponse {
            svids: vec![svid],
            ..Default::default()
        };
        let token = types::JoinToken {
            value: "opensesame".into(),
            expires_at: 7,
        };
        for printed in [format!("{answer:?}"), format!("{token:#?}")] {
            assert!(printed.contains("<redacted>"), "{printed}");
            assert!(!printed.contains("opensesame"), "{printed}");
            assert!(
                !printed.contains(&format!("{:?}", b"opensesame")),
                "{printed}"
            );
        }
    }
}
