//! The bootstrap of the injected Envoy.
//!
//! Certificates and trust bundles come by SDS from the agent's socket, under Istio's names: `default`, `ROOTCA` and, where
//! identities of other trust domains are named, `ALL`. Envoy takes no request before it has them: `/ready` says so.

use serde_json::{Map, Value, json};

use super::annotations::{Protocol, Wanted};
use super::captured::Captured;
use super::rules::Rules;
use super::upstream::{Pattern, Upstream};
use super::{ADMIN_SOCKET, SOCKET_FILE};
use crate::capture::Host;

mod capture;
mod probes;

const TYPE: &str = "type.googleapis.com/envoy.extensions";
const AGENT: &str = "signet_agent";
const ADMIN: &str = "admin";

/// The whole bootstrap. `app_port`: where the app listens; nothing without it is inbound.
pub(crate) fn bootstrap(
    wanted: &Wanted,
    app_port: Option<u16>,
    captured: &Captured,
    rules: &Rules,
) -> Value {
    let mut listeners = vec![metrics_listener(wanted, rules)];
    let mut clusters = vec![agent_cluster(), admin_cluster()];
    if let Some(app_port) = app_port {
        listeners.push(inbound(wanted, rules));
        clusters.push(static_cluster(
            "app",
            &socket_address("127.0.0.1", app_port),
        ));
    }
    for upstream in &wanted.upstreams {
        let listener = outbound(upstream);
        listeners.push(if captured.outbound {
            capture::outbound(listener, upstream, rules)
        } else {
            listener
        });
        clusters.push(upstream_cluster(upstream, rules));
    }
    if !captured.ports.is_empty() {
        listeners.push(capture::inbound(wanted, app_port, captured, rules));
        clusters.push(capture::original_cluster(capture::INBOUND));
    }
    if !captured.probes.is_empty() {
        listeners.push(probes::listener(&captured.probes, rules));
        clusters.extend(captured.probes.iter().map(probes::cluster));
    }
    json!({
        "admin": {"address": {"pipe": {"path": ADMIN_SOCKET, "mode": 0o600}}},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

/// As an argument of a container, in which the kubelet replaces `$(NAME)`: only the pod's address is meant so.
pub(crate) fn to_argument(bootstrap: &Value) -> String {
    let dollar = "\\u0024";
    let text = bootstrap.to_string().replace('$', dollar);
    text.replace(
        &probes::POD_ADDRESS.replace('$', dollar),
        probes::POD_ADDRESS,
    )
}

fn socket_address(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

/// Where other pods connect: every address, by the operator's choice of family.
fn public_address(rules: &Rules, port: u16) -> Value {
    let mut address = socket_address(&rules.envoy.listen_address, port);
    if rules.envoy.listen_address == "::" {
        address["socket_address"]["ipv4_compat"] = json!(true);
    }
    address
}

fn typed(kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("{TYPE}.{kind}"));
    config
}

fn filter(name: &str, kind: &str, config: Value) -> Value {
    json!({"name": name, "typed_config": typed(kind, config)})
}

/// Metrics and readiness, and nothing else of the admin interface.
fn metrics_listener(wanted: &Wanted, rules: &Rules) -> Value {
    let route = |path: &str| json!({"match": {"path": path}, "route": {"cluster": ADMIN}});
    let manager = http_manager(
        "metrics",
        json!([route("/stats/prometheus"), route("/ready")]),
        &[],
    );
    json!({
        "name": "metrics",
        "address": public_address(rules, wanted.metrics_port),
        "filter_chains": [{"filters": [manager]}],
        // Scrapes are no traffic of the app.
        "ignore_global_conn_limit": true,
    })
}

/// In front of the app: mTLS only, the caller's ID checked and told.
fn inbound(wanted: &Wanted, rules: &Rules) -> Value {
    json!({
        "name": "inbound",
        "address": public_address(rules, wanted.port),
        "filter_chains": [inbound_chain("inbound", "app", wanted.protocol, &wanted.allow, rules)],
    })
}

/// mTLS with whoever is allowed, and behind it `cluster`. `name`: of its figures.
fn inbound_chain(
    name: &str,
    cluster: &str,
    protocol: Protocol,
    allow: &[Pattern],
    rules: &Rules,
) -> Value {
    let own = &rules.trust_domain;
    let foreign = allow.iter().any(|pattern| pattern.trust_domain() != own);
    let mut tls = tls_context(foreign, &[]);
    let mut filters = Vec::new();
    match protocol {
        Protocol::Http => {
            tls["alpn_protocols"] = json!(["h2", "http/1.1"]);
            filters.push(inbound_http(name, cluster, allow));
        }
        Protocol::Tcp => {
            if !allow.is_empty() {
                let mut config = allow_rules(allow);
                config["stat_prefix"] = json!(name);
                filters.push(filter(
                    "envoy.filters.network.rbac",
                    "filters.network.rbac.v3.RBAC",
                    config,
                ));
            }
            filters.push(tcp_proxy(name, cluster));
        }
    }
    let context = json!({
        "require_client_certificate": true,
        // Resumed sessions would skip the check of the peer against the newest bundle.
        "disable_stateless_session_resumption": true,
        "disable_stateful_session_resumption": true,
        "common_tls_context": tls,
    });
    let transport = filter(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        context,
    );
    json!({"transport_socket": transport, "filters": filters})
}

fn inbound_http(name: &str, cluster: &str, allow: &[Pattern]) -> Value {
    let routes =
        json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}]);
    let mut before = Vec::new();
    if !allow.is_empty() {
        before.push(filter(
            "envoy.filters.http.rbac",
            "filters.http.rbac.v3.RBAC",
            allow_rules(allow),
        ));
    }
    let mut manager = http_manager(name, routes, &before);
    let config = &mut manager["typed_config"];
    // The app learns who calls from x-forwarded-client-cert, which no caller can forge.
    config["forward_client_cert_details"] = json!("SANITIZE_SET");
    config["set_current_client_cert_details"] = json!({"uri": true});
    manager
}

/// The callers named, and nobody else.
fn allow_rules(allow: &[Pattern]) -> Value {
    let principals: Vec<Value> = allow
        .iter()
        .map(|pattern| {
            let name = match pattern {
                Pattern::Exact(id) => json!({"exact": id.as_str()}),
                Pattern::Under { prefix, .. } => json!({"prefix": prefix}),
            };
            json!({"authenticated": {"principal_name": name}})
        })
        .collect();
    let policy = json!({"permissions": [{"any": true}], "principals": principals});
    json!({"rules": {"action": "ALLOW", "policies": {"callers": policy}}})
}

fn http_manager(name: &str, routes: Value, before: &[Value]) -> Value {
    let mut filters = before.to_vec();
    filters.push(filter(
        "envoy.filters.http.router",
        "filters.http.router.v3.Router",
        json!({}),
    ));
    let config = json!({
        "stat_prefix": name,
        // Streams outlive a rotation, but not for ever: trust that was withdrawn takes effect.
        "common_http_protocol_options": {"max_connection_duration": "3600s"},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    });
    filter(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        config,
    )
}

fn tcp_proxy(name: &str, cluster: &str) -> Value {
    let config = json!({"stat_prefix": name, "cluster": cluster, "max_downstream_connection_duration": "3600s"});
    filter(
        "envoy.filters.network.tcp_proxy",
        "filters.network.tcp_proxy.v3.TcpProxy",
        config,
    )
}

fn upstream_name(upstream: &Upstream) -> String {
    format!("upstream_{}", upstream.local_port)
}

/// A local port for the app, behind which Envoy speaks mTLS.
fn outbound(upstream: &Upstream) -> Value {
    let name = upstream_name(upstream);
    let filter = if upstream.tcp {
        tcp_proxy(&name, &name)
    } else {
        let mut route = json!({"cluster": name, "timeout": "0s"});
        if upstream.network().is_none() {
            // The app asks 127.0.0.1; the service behind sees its own name.
            route["host_rewrite_literal"] = json!(upstream.authority());
        }
        http_manager(
            &name,
            json!([{"match": {"prefix": "/"}, "route": route}]),
            &[],
        )
    };
    json!({
        "name": name,
        "address": socket_address("127.0.0.1", upstream.local_port),
        "filter_chains": [{"filters": [filter]}],
    })
}

fn upstream_cluster(upstream: &Upstream, rules: &Rules) -> Value {
    let foreign = upstream
        .peers
        .iter()
        .any(|peer| peer.trust_domain() != &rules.trust_domain);
    let matchers: Vec<Value> = upstream
        .peers
        .iter()
        .map(|peer| json!({"san_type": "URI", "matcher": {"exact": peer.as_str()}}))
        .collect();
    let mut context = json!({
        // Every handshake checks the peer against the newest bundle.
        "max_session_keys": 0,
        "common_tls_context": tls_context(foreign, &matchers),
    });
    if let Host::Name(name) = &upstream.host {
        context["sni"] = json!(name.trim_end_matches('.'));
    }
    let mut cluster = endpoint_cluster(&upstream_name(upstream), upstream);
    if !upstream.tcp {
        let both = json!({"http_protocol_options": {}, "http2_protocol_options": {}});
        cluster["typed_extension_protocol_options"] = http_options(json!({
            "common_http_protocol_options": {"max_connection_duration": "3600s"},
            // HTTP/2 where the peer offers it by ALPN.
            "auto_config": both,
        }));
    }
    cluster["transport_socket"] = filter(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.UpstreamTlsContext",
        context,
    );
    cluster
}

/// Where the upstream is: by DNS, at its address, or anywhere in its network, as the app's connection says.
fn endpoint_cluster(name: &str, upstream: &Upstream) -> Value {
    match &upstream.host {
        Host::Name(host) => {
            let mut cluster = static_cluster(name, &socket_address(host, upstream.port));
            cluster["type"] = json!("STRICT_DNS");
            cluster["dns_lookup_family"] = json!("V4_PREFERRED");
            cluster
        }
        Host::Net(_) if upstream.network().is_some() => capture::original_cluster(name),
        Host::Net(net) => static_cluster(
            name,
            &socket_address(&net.address().to_string(), upstream.port),
        ),
    }
}

fn static_cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

fn http_options(config: Value) -> Value {
    const NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut options = Map::new();
    options.insert(
        NAME.to_owned(),
        typed("upstreams.http.v3.HttpProtocolOptions", config),
    );
    Value::Object(options)
}

fn admin_cluster() -> Value {
    static_cluster(ADMIN, &json!({"pipe": {"path": ADMIN_SOCKET}}))
}

/// The agent's socket: Envoy opens one stream per secret, all on one connection.
fn agent_cluster() -> Value {
    let mut cluster = static_cluster(AGENT, &json!({"pipe": {"path": SOCKET_FILE}}));
    cluster["connect_timeout"] = json!("1s");
    // Notices an agent that hangs; one that dies is noticed at once.
    let http2 = json!({"connection_keepalive": {"interval": "30s", "timeout": "5s"}});
    let options = json!({"explicit_http_config": {"http2_protocol_options": http2}});
    cluster["typed_extension_protocol_options"] = http_options(options);
    cluster
}

/// Own certificate, and whom to trust: the own trust domain, or all federated ones as well.
fn tls_context(foreign: bool, matchers: &[Value]) -> Value {
    let bundle = secret(if foreign { "ALL" } else { "ROOTCA" });
    let mut context = json!({"tls_certificate_sds_secret_configs": [secret("default")]});
    if matchers.is_empty() {
        context["validation_context_sds_secret_config"] = bundle;
    } else {
        context["combined_validation_context"] = json!({
            "default_validation_context": {"match_typed_subject_alt_names": matchers},
            "validation_context_sds_secret_config": bundle,
        });
    }
    context
}

fn secret(name: &str) -> Value {
    json!({
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            // Wait for ever: a pod without an identity is not ready, rather than up and useless.
            "initial_fetch_timeout": "0s",
            "api_config_source": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                // Envoy's node message is 61 kB: send it once per stream, not with every ACK.
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {
                    "cluster_name": AGENT,
                    // After an agent restart, be back within a second.
                    "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
                }}],
            },
        },
    })
}
