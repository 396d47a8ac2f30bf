//! SPIRE's way of naming figures.

use tonic::Code;

/// A name or label: characters that Prometheus does not take become `_`.
pub(super) fn key(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '_'
        }
    };
    name.chars().map(plain).collect()
}

/// A label's value: each run of characters other than letters, digits and `_` becomes one `_`.
pub(super) fn sanitize(value: &str) -> String {
    let mut sanitized = String::with_capacity(value.len());
    let mut in_run = false;
    for c in value.chars() {
        let plain = c.is_ascii_alphanumeric() || c == '_';
        if plain {
            sanitized.push(c);
        } else if !in_run {
            sanitized.push('_');
        }
        in_run = !plain;
    }
    sanitized
}

/// The text of a status code, as Go's gRPC gives it.
pub(super) fn code_text(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// `/spire.api.server.agent.v1.Agent/AttestAgent` → `rpc_agent_v1_agent_attest_agent`.
pub(super) fn rpc_name(path: &str) -> String {
    under("rpc", path)
}

/// `/spire.api.server.agent.v1.Agent/AttestAgent` → `rateLimit_agent_v1_agent_attest_agent`.
pub(super) fn rate_limit_name(path: &str) -> String {
    under("rateLimit", path)
}

/// The name of the method at `path` behind `prefix`.
fn under(prefix: &str, path: &str) -> String {
    let (service, method) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((path, ""));
    let service = match service {
        "SpiffeWorkloadAPI" => "WorkloadAPI",
        "envoy.service.secret.v3.SecretDiscoveryService" => "SDS.v3",
        "grpc.health.v1.Health" => "Health",
        "spire.api.agent.debug.v1.Debug" => "Debug",
        "spire.api.agent.delegatedidentity.v1.DelegatedIdentity" => "DelegatedIdentity",
        "spire.api.agent.logger.v1.Logger" | "spire.api.server.logger.v1.Logger" => "Logger",
        other => other.strip_prefix("spire.api.server.").unwrap_or(other),
    };
    let mut name = prefix.to_owned();
    for part in service.split('.').chain([method]) {
        name.push('_');
        name.push_str(&snake_case(part));
    }
    key(&name)
}

/// An underscore stands before an upper-case letter only where a neighbour is lower-case.
fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let is_lower = |at: Option<usize>| {
        at.and_then(|at| chars.get(at))
            .is_some_and(char::is_ascii_lowercase)
    };
    let mut snake = String::with_capacity(name.len() + 4);
    for (at, c) in chars.iter().enumerate() {
        let boundary = is_lower(at.checked_sub(1)) || is_lower(Some(at + 1));
        if at > 0 && c.is_ascii_uppercase() && boundary {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rpc_names_are_spires() {
        let check =
            |path: &str, name: &str| assert_eq!(rpc_name(path), format!("rpc_{name}"), "{path}");
        check(
            "/spire.api.server.agent.v1.Agent/AttestAgent",
            "agent_v1_agent_attest_agent",
        );
        check(
            "/spire.api.server.svid.v1.SVID/MintX509SVID",
            "svid_v1_svid_mint_x509svid",
        );
        check(
            "/spire.api.server.svid.v1.SVID/NewDownstreamX509CA",
            "svid_v1_svid_new_downstream_x509ca",
        );
        check(
            "/spire.api.server.svid.v1.SVID/BatchNewX509SVID",
            "svid_v1_svid_batch_new_x509svid",
        );
        check(
            "/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority",
            "bundle_v1_bundle_publish_jwt_authority",
        );
        check(
            "/spire.api.server.trustdomain.v1.TrustDomain/RefreshBundle",
            "trustdomain_v1_trust_domain_refresh_bundle",
        );
        check(
            "/spire.api.server.localauthority.v1.LocalAuthority/GetX509AuthorityState",
            "localauthority_v1_local_authority_get_x509_authority_state",
        );
        check(
            "/spire.api.server.debug.v1.Debug/GetInfo",
            "debug_v1_debug_get_info",
        );
        check(
            "/spire.api.server.logger.v1.Logger/SetLogLevel",
            "logger_set_log_level",
        );
        check("/spire.api.agent.debug.v1.Debug/GetInfo", "debug_get_info");
        check(
            "/SpiffeWorkloadAPI/FetchX509Bundles",
            "workload_api_fetch_x509_bundles",
        );
        check(
            "/SpiffeWorkloadAPI/FetchJWTSVID",
            "workload_api_fetch_jwtsvid",
        );
        check(
            "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
            "sds_v3_stream_secrets",
        );
        check(
            "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/FetchJWTSVIDs",
            "delegated_identity_fetch_jwtsvi_ds",
        );
        check("/grpc.health.v1.Health/Check", "health_check");
        let path = "/spire.api.server.agent.v1.Agent/AttestAgent";
        assert_eq!(
            rate_limit_name(path),
            "rateLimit_agent_v1_agent_attest_agent"
        );
    }

    #[test]
    fn any_path_gives_a_name_that_prometheus_takes() {
        for path in ["", "/", "//", "/a", "/a/b/c", "/ä.b/Ü", "/x.y-z/\u{202e}"] {
            let name = rpc_name(path);
            assert!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                "{name}"
            );
        }
    }

    #[test]
    fn label_values_are_sanitized_by_runs() {
        assert_eq!(sanitize("example.org"), "example_org");
        assert_eq!(sanitize("a - b"), "a_b");
        assert_eq!(sanitize("a\n\"} 1"), "a_1");
    }
}
