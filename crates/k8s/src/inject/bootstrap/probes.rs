//! The port where the kubelet, which has no SVID, still reaches what the pod's probes and hooks ask. It answers nothing
//! but their own paths:
//!
//! * HTTP: the one path goes to the app, and its answer comes back.
//! * TCP and gRPC: Envoy probes the app itself, and answers 200 or 503.

use serde_json::{Value, json};

use super::{filter, http_manager, http_options, public_address, static_cluster};
use crate::inject::probes::{Check, Probe};
use crate::inject::rules::Rules;

/// The pod's address, which the kubelet writes into the container's arguments.
pub(crate) const POD_ADDRESS: &str = "$(SIGNET_POD_IP)";

/// The listener of all of them.
pub(super) fn listener(probes: &[Probe], rules: &Rules) -> Value {
    let routes: Vec<Value> = probes.iter().filter_map(route).collect();
    let answers: Vec<Value> = probes.iter().filter_map(answer).collect();
    let manager = http_manager("probes", json!(routes), &answers);
    json!({
        "name": "probes",
        "address": public_address(rules, rules.envoy.probe_port),
        "filter_chains": [{"filters": [manager]}],
        "ignore_global_conn_limit": true,
    })
}

fn cluster_name(probe: &Probe) -> String {
    format!("probe_{}_{}", probe.container, probe.kind.name())
}

fn route(probe: &Probe) -> Option<Value> {
    let Check::Http { path, .. } = &probe.check else {
        return None;
    };
    let get = json!({"name": ":method", "string_match": {"exact": "GET"}});
    Some(json!({
        "match": {"path": probe.path(), "headers": [get]},
        "route": {"cluster": cluster_name(probe), "prefix_rewrite": path, "timeout": "0s"},
        // A redirection is an answer; followed, it would lead to a path that is not open here.
        "response_headers_to_remove": ["location"],
    }))
}

/// Answers for the app from what Envoy's own checks of it say.
fn answer(probe: &Probe) -> Option<Value> {
    if matches!(probe.check, Check::Http { .. }) {
        return None;
    }
    let config = json!({
        "pass_through_mode": false,
        "headers": [{"name": ":path", "string_match": {"exact": probe.path()}}],
        "cluster_min_healthy_percentages": {cluster_name(probe): {"value": 100}},
    });
    Some(filter(
        "envoy.filters.http.health_check",
        "filters.http.health_check.v3.HealthCheck",
        config,
    ))
}

/// The app, as the kubelet would reach it: at the pod's address.
pub(super) fn cluster(probe: &Probe) -> Value {
    let address = json!({"socket_address": {"address": POD_ADDRESS, "port_value": probe.port}});
    let mut cluster = static_cluster(&cluster_name(probe), &address);
    match &probe.check {
        Check::Http { tls: false, .. } => {}
        // As the kubelet does, whatever the certificate.
        Check::Http { tls: true, .. } => {
            cluster["transport_socket"] = filter(
                "envoy.transport_sockets.tls",
                "transport_sockets.tls.v3.UpstreamTlsContext",
                json!({"common_tls_context": {}}),
            );
        }
        Check::Tcp => cluster["health_checks"] = check(probe, "tcp_health_check", json!({})),
        Check::Grpc { service } => {
            cluster["health_checks"] =
                check(probe, "grpc_health_check", json!({"service_name": service}));
            cluster["typed_extension_protocol_options"] =
                http_options(json!({"explicit_http_config": {"http2_protocol_options": {}}}));
        }
    }
    cluster
}

/// Every second until it is well, then as often as the probe. One answer decides: the kubelet has the thresholds.
fn check(probe: &Probe, kind: &str, config: Value) -> Value {
    let period = format!("{}s", probe.period);
    json!([{
        "timeout": format!("{}s", probe.timeout),
        "interval": period,
        "no_traffic_interval": "1s",
        "no_traffic_healthy_interval": period,
        "unhealthy_interval": "1s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "reuse_connection": false,
        kind: config,
    }])
}
