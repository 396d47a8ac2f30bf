//! The bootstrap of the injected Envoy.
//!
//! Certificates and trust bundles come by SDS from the agent's socket, under Istio's names: `default`, `ROOTCA` and, where
//! identities of other trust domains are named, `ALL`. Envoy takes no request before it has them: `/ready` says so.

use super::annotations::{Protocol, Wanted};
use super::captured::Captured;
use super::rules::Rules;
use super::upstream::{Pattern, Upstream};
use super::{ADMIN_SOCKET, SOCKET_FILE};
use crate::capture::Host;

mod capture;
mod json;
mod probes;

use self::json::{Json, object};

const TYPE: &str = "type.googleapis.com/envoy.extensions";
const AGENT: &str = "signet_agent";
const ADMIN: &str = "admin";

/// The whole bootstrap, as an argument. `app_port`: where the app listens; nothing without it is inbound.
pub(crate) fn bootstrap(
    wanted: &Wanted,
    app_port: Option<u16>,
    captured: &Captured,
    rules: &Rules,
) -> String {
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
        listeners.push(outbound(upstream, captured, rules));
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
    let whole = object! {
        "admin": object! {"address": object! {"pipe": object! {"path": ADMIN_SOCKET, "mode": 0o600_u32}}},
        "static_resources": object! {"listeners": listeners, "clusters": clusters},
    };
    whole.into_text()
}

fn socket_address(address: &str, port: u16) -> Json {
    object! {"socket_address": object! {"address": address, "port_value": port}}
}

/// Where other pods connect: every address, by the operator's choice of family.
fn public_address(rules: &Rules, port: u16) -> Json {
    let address = object! {"address": rules.envoy.listen_address, "port_value": port};
    let both = rules.envoy.listen_address == "::";
    object! {"socket_address": if both { address.with("ipv4_compat", &true) } else { address }}
}

fn typed(kind: &str, config: Json) -> Json {
    config.with("@type", &format!("{TYPE}.{kind}"))
}

fn filter(name: &str, kind: &str, config: Json) -> Json {
    object! {"name": name, "typed_config": typed(kind, config)}
}

/// Metrics and readiness, and nothing else of the admin interface.
fn metrics_listener(wanted: &Wanted, rules: &Rules) -> Json {
    let route =
        |path: &str| object! {"match": object! {"path": path}, "route": object! {"cluster": ADMIN}};
    let routes = [route("/stats/prometheus"), route("/ready")];
    let manager = http_manager("metrics", &routes, &[], object! {});
    object! {
        "name": "metrics",
        "address": public_address(rules, wanted.metrics_port),
        "filter_chains": [object! {"filters": [manager]}],
        // Scrapes are no traffic of the app.
        "ignore_global_conn_limit": true,
    }
}

/// In front of the app: mTLS only, the caller's ID checked and told.
fn inbound(wanted: &Wanted, rules: &Rules) -> Json {
    object! {
        "name": "inbound",
        "address": public_address(rules, wanted.port),
        "filter_chains": [inbound_chain("inbound", "app", wanted.protocol, &wanted.allow, rules)],
    }
}

/// mTLS with whoever is allowed, and behind it `cluster`. `name`: of its figures.
fn inbound_chain(
    name: &str,
    cluster: &str,
    protocol: Protocol,
    allow: &[Pattern],
    rules: &Rules,
) -> Json {
    let own = &rules.trust_domain;
    let foreign = allow.iter().any(|pattern| pattern.trust_domain() != own);
    let mut tls = tls_context(foreign, &[]);
    let mut filters = Vec::new();
    match protocol {
        Protocol::Http => {
            tls = tls.with("alpn_protocols", &["h2", "http/1.1"]);
            filters.push(inbound_http(name, cluster, allow));
        }
        Protocol::Tcp => {
            if !allow.is_empty() {
                filters.push(filter(
                    "envoy.filters.network.rbac",
                    "filters.network.rbac.v3.RBAC",
                    allow_rules(allow).with("stat_prefix", name),
                ));
            }
            filters.push(tcp_proxy(name, cluster));
        }
    }
    let context = object! {
        "require_client_certificate": true,
        // Resumed sessions would skip the check of the peer against the newest bundle.
        "disable_stateless_session_resumption": true,
        "disable_stateful_session_resumption": true,
        "common_tls_context": tls,
    };
    let transport = filter(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        context,
    );
    object! {"transport_socket": transport, "filters": filters}
}

fn inbound_http(name: &str, cluster: &str, allow: &[Pattern]) -> Json {
    let mut before = Vec::new();
    if !allow.is_empty() {
        before.push(filter(
            "envoy.filters.http.rbac",
            "filters.http.rbac.v3.RBAC",
            allow_rules(allow),
        ));
    }
    // The app learns who calls from x-forwarded-client-cert, which no caller can forge.
    let more = object! {
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": object! {"uri": true},
    };
    let route = object! {"cluster": cluster, "timeout": "0s"};
    http_manager(name, &[any_path(route)], &before, more)
}

fn any_path(route: Json) -> Json {
    object! {"match": object! {"prefix": "/"}, "route": route}
}

/// The callers named, and nobody else.
fn allow_rules(allow: &[Pattern]) -> Json {
    let principals: Vec<Json> = allow
        .iter()
        .map(|pattern| {
            let name = match pattern {
                Pattern::Exact(id) => object! {"exact": id.as_str()},
                Pattern::Under { prefix, .. } => object! {"prefix": prefix},
            };
            object! {"authenticated": object! {"principal_name": name}}
        })
        .collect();
    let policy = object! {"permissions": [object! {"any": true}], "principals": principals};
    object! {"rules": object! {"action": "ALLOW", "policies": object! {"callers": policy}}}
}

/// `more`: of its configuration. `before`: filters before the one that sends requests on.
fn http_manager(name: &str, routes: &[Json], before: &[Json], more: Json) -> Json {
    let mut filters = before.to_vec();
    filters.push(filter(
        "envoy.filters.http.router",
        "filters.http.router.v3.Router",
        object! {},
    ));
    let hosts = [object! {"name": "all", "domains": ["*"], "routes": routes}];
    let config = more
        .with("stat_prefix", name)
        // Streams outlive a rotation, but not for ever: trust that was withdrawn takes effect.
        .with(
            "common_http_protocol_options",
            &object! {"max_connection_duration": "3600s"},
        )
        .with("upgrade_configs", &[object! {"upgrade_type": "websocket"}])
        .with("route_config", &object! {"virtual_hosts": hosts})
        .with("http_filters", &filters);
    filter(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        config,
    )
}

fn tcp_proxy(name: &str, cluster: &str) -> Json {
    let config = object! {"stat_prefix": name, "cluster": cluster, "max_downstream_connection_duration": "3600s"};
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
fn outbound(upstream: &Upstream, captured: &Captured, rules: &Rules) -> Json {
    let name = upstream_name(upstream);
    let filter = if upstream.tcp {
        tcp_proxy(&name, &name)
    } else {
        let mut route = object! {"cluster": name, "timeout": "0s"};
        if upstream.network().is_none() {
            // The app asks 127.0.0.1; the service behind sees its own name.
            route = route.with("host_rewrite_literal", &upstream.authority());
        }
        http_manager(&name, &[any_path(route)], &[], object! {})
    };
    let listener = object! {
        "name": name,
        "address": socket_address("127.0.0.1", upstream.local_port),
    };
    let chain = object! {"filters": [filter]};
    if captured.outbound {
        return capture::outbound(listener, chain, upstream, rules);
    }
    listener.with("filter_chains", &[chain])
}

fn upstream_cluster(upstream: &Upstream, rules: &Rules) -> Json {
    let foreign = upstream
        .peers
        .iter()
        .any(|peer| peer.trust_domain() != &rules.trust_domain);
    let matchers: Vec<Json> = upstream
        .peers
        .iter()
        .map(|peer| object! {"san_type": "URI", "matcher": object! {"exact": peer.as_str()}})
        .collect();
    let mut context = object! {
        // Every handshake checks the peer against the newest bundle.
        "max_session_keys": 0_u16,
        "common_tls_context": tls_context(foreign, &matchers),
    };
    if let Host::Name(name) = &upstream.host {
        context = context.with("sni", name.trim_end_matches('.'));
    }
    let mut cluster = endpoint_cluster(&upstream_name(upstream), upstream);
    if !upstream.tcp {
        let both =
            object! {"http_protocol_options": object! {}, "http2_protocol_options": object! {}};
        let options = object! {
            "common_http_protocol_options": object! {"max_connection_duration": "3600s"},
            // HTTP/2 where the peer offers it by ALPN.
            "auto_config": both,
        };
        cluster = cluster.with(HTTP_OPTIONS, &http_options(options));
    }
    let transport = filter(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.UpstreamTlsContext",
        context,
    );
    cluster.with("transport_socket", &transport)
}

/// Where the upstream is: by DNS, at its address, or anywhere in its network, as the app's connection says.
fn endpoint_cluster(name: &str, upstream: &Upstream) -> Json {
    match &upstream.host {
        Host::Name(host) => {
            let address = socket_address(host, upstream.port);
            let cluster = cluster(name, "STRICT_DNS", "5s", &address);
            cluster.with("dns_lookup_family", "V4_PREFERRED")
        }
        Host::Net(_) if upstream.network().is_some() => capture::original_cluster(name),
        Host::Net(net) => static_cluster(
            name,
            &socket_address(&net.address().to_string(), upstream.port),
        ),
    }
}

fn static_cluster(name: &str, address: &Json) -> Json {
    cluster(name, "STATIC", "5s", address)
}

fn cluster(name: &str, kind: &str, timeout: &str, address: &Json) -> Json {
    let endpoint = object! {"endpoint": object! {"address": address}};
    object! {
        "name": name,
        "type": kind,
        "connect_timeout": timeout,
        "load_assignment": object! {
            "cluster_name": name,
            "endpoints": [object! {"lb_endpoints": [endpoint]}],
        },
    }
}

/// What a cluster speaks.
const HTTP_OPTIONS: &str = "typed_extension_protocol_options";

fn http_options(config: Json) -> Json {
    let options = typed("upstreams.http.v3.HttpProtocolOptions", config);
    object! {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
}

fn admin_cluster() -> Json {
    static_cluster(ADMIN, &object! {"pipe": object! {"path": ADMIN_SOCKET}})
}

/// The agent's socket: Envoy opens one stream per secret, all on one connection.
fn agent_cluster() -> Json {
    // Notices an agent that hangs; one that dies is noticed at once.
    let keepalive = object! {"interval": "30s", "timeout": "5s"};
    let http2 = object! {"connection_keepalive": keepalive};
    let options = object! {"explicit_http_config": object! {"http2_protocol_options": http2}};
    let address = object! {"pipe": object! {"path": SOCKET_FILE}};
    cluster(AGENT, "STATIC", "1s", &address).with(HTTP_OPTIONS, &http_options(options))
}

/// Own certificate, and whom to trust: the own trust domain, or all federated ones as well.
fn tls_context(foreign: bool, matchers: &[Json]) -> Json {
    let bundle = secret(if foreign { "ALL" } else { "ROOTCA" });
    let context = object! {"tls_certificate_sds_secret_configs": [secret("default")]};
    if matchers.is_empty() {
        return context.with("validation_context_sds_secret_config", &bundle);
    }
    let combined = object! {
        "default_validation_context": object! {"match_typed_subject_alt_names": matchers},
        "validation_context_sds_secret_config": bundle,
    };
    context.with("combined_validation_context", &combined)
}

fn secret(name: &str) -> Json {
    // After an agent restart, be back within a second.
    let back_off = object! {"base_interval": "0.1s", "max_interval": "1s"};
    let agent = object! {
        "cluster_name": AGENT,
        "retry_policy": object! {"retry_back_off": back_off},
    };
    object! {
        "name": name,
        "sds_config": object! {
            "resource_api_version": "V3",
            // Wait for ever: a pod without an identity is not ready, rather than up and useless.
            "initial_fetch_timeout": "0s",
            "api_config_source": object! {
                // On an incremental stream the agent tells at once that there is no identity yet, and Envoy, which then has
                // its answer, would be ready without one. On this one it is told nothing until there is.
                "api_type": "GRPC",
                "transport_api_version": "V3",
                // Envoy's node message is 61 kB: send it once per stream, not with every ACK.
                "set_node_on_first_message_only": true,
                "grpc_services": [object! {"envoy_grpc": agent}],
            },
        },
    }
}
