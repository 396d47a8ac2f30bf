//! The port where the kubelet, which has no SVID, still reaches what the pod's probes and hooks ask. It answers nothing
//! but their own paths:
//!
//! * HTTP: the one path goes to the app, and its answer comes back.
//! * TCP and gRPC: Envoy probes the app itself, and answers 200 or 503.

use super::{
    HTTP_OPTIONS, Json, filter, http_manager, http_options, object, public_address, static_cluster,
};
use crate::inject::probes::{Check, Probe};
use crate::inject::rules::Rules;

/// The pod's address, which the kubelet writes into the container's arguments.
const POD_ADDRESS: &str = "$(SIGNET_POD_IP)";

/// The listener of all of them.
pub(super) fn listener(probes: &[Probe], rules: &Rules) -> Json {
    let routes: Vec<Json> = probes.iter().filter_map(route).collect();
    let answers: Vec<Json> = probes.iter().filter_map(answer).collect();
    let manager = http_manager("probes", &routes, &answers, object! {});
    object! {
        "name": "probes",
        "address": public_address(rules, rules.envoy.probe_port),
        "filter_chains": [object! {"filters": [manager]}],
        "ignore_global_conn_limit": true,
    }
}

fn cluster_name(probe: &Probe) -> String {
    format!("probe_{}_{}", probe.container, probe.kind.name())
}

fn route(probe: &Probe) -> Option<Json> {
    let Check::Http { path, .. } = &probe.check else {
        return None;
    };
    let get = object! {"name": ":method", "string_match": object! {"exact": "GET"}};
    let cluster = cluster_name(probe);
    Some(object! {
        "match": object! {"path": probe.path(), "headers": [get]},
        "route": object! {"cluster": cluster, "prefix_rewrite": path, "timeout": "0s"},
        // A redirection is an answer; followed, it would lead to a path that is not open here.
        "response_headers_to_remove": ["location"],
    })
}

/// Answers for the app from what Envoy's own checks of it say.
fn answer(probe: &Probe) -> Option<Json> {
    if matches!(probe.check, Check::Http { .. }) {
        return None;
    }
    let path = object! {"name": ":path", "string_match": object! {"exact": probe.path()}};
    let all = Json::object().with(&cluster_name(probe), &object! {"value": 100_u16});
    let config = object! {
        "pass_through_mode": false,
        "headers": [path],
        "cluster_min_healthy_percentages": all,
    };
    Some(filter(
        "envoy.filters.http.health_check",
        "filters.http.health_check.v3.HealthCheck",
        config,
    ))
}

/// The app, as the kubelet would reach it: at the pod's address.
pub(super) fn cluster(probe: &Probe) -> Json {
    let address = object! {"address": Json::verbatim(POD_ADDRESS), "port_value": probe.port};
    let cluster = static_cluster(&cluster_name(probe), &object! {"socket_address": address});
    match &probe.check {
        Check::Http { tls: false, .. } => cluster,
        Check::Http { tls: true, .. } => {
            // As the kubelet does, whatever the certificate.
            let transport = filter(
                "envoy.transport_sockets.tls",
                "transport_sockets.tls.v3.UpstreamTlsContext",
                object! {"common_tls_context": object! {}},
            );
            cluster.with("transport_socket", &transport)
        }
        Check::Tcp => {
            let check = check(probe).with("tcp_health_check", &object! {});
            cluster.with("health_checks", &[check])
        }
        Check::Grpc { service } => {
            let health = object! {"service_name": service};
            let check = check(probe).with("grpc_health_check", &health);
            let http2 = object! {"http2_protocol_options": object! {}};
            let options = http_options(object! {"explicit_http_config": http2});
            cluster
                .with("health_checks", &[check])
                .with(HTTP_OPTIONS, &options)
        }
    }
}

/// Every second until it is well, then as often as the probe. One answer decides: the kubelet has the thresholds.
fn check(probe: &Probe) -> Json {
    let period = format!("{}s", probe.period);
    object! {
        "timeout": format!("{}s", probe.timeout),
        "interval": period,
        "no_traffic_interval": "1s",
        "no_traffic_healthy_interval": period,
        "unhealthy_interval": "1s",
        "unhealthy_threshold": 1_u16,
        "healthy_threshold": 1_u16,
        "reuse_connection": false,
    }
}
