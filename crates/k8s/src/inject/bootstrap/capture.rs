//! What Envoy has more when connections are redirected to it: it looks up where they were to go.

use super::{Json, inbound_chain, object, public_address, socket_address, typed};
use crate::inject::annotations::{Protocol, Wanted};
use crate::inject::captured::Captured;
use crate::inject::rules::Rules;
use crate::inject::upstream::Upstream;

/// The listener in front of the app's own ports, and the cluster behind it.
pub(super) const INBOUND: &str = "captured";

/// mTLS in front of each of the app's own ports. What was not redirected matches no chain and is cut off: a connection
/// to this port itself would come back for ever.
pub(super) fn inbound(
    wanted: &Wanted,
    app_port: Option<u16>,
    captured: &Captured,
    rules: &Rules,
) -> Json {
    let chain = |port: &u16| {
        // What the annotations say of the app's protocol is said of its one port; bytes are right for all others.
        let protocol = if Some(*port) == app_port {
            wanted.protocol
        } else {
            Protocol::Tcp
        };
        let name = format!("{INBOUND}_{port}");
        inbound_chain(&name, INBOUND, protocol, &wanted.allow, rules)
            .with("name", &name)
            .with("filter_chain_match", &object! {"destination_port": port})
    };
    let chains: Vec<Json> = captured.ports.iter().map(chain).collect();
    object! {
        "name": INBOUND,
        "address": public_address(rules, rules.envoy.capture_port),
        "listener_filters": [original_destination()],
        "filter_chains": chains,
    }
}

/// The listener of an upstream, with its one chain of filters, for redirected connections as well.
pub(super) fn outbound(
    mut listener: Json,
    mut chain: Json,
    upstream: &Upstream,
    rules: &Rules,
) -> Json {
    // Redirected connections come to the loopback address of their family.
    if rules.envoy.listen_address.contains(':') {
        let address = socket_address("::1", upstream.local_port);
        listener = listener.with("additional_addresses", &[object! {"address": address}]);
    }
    if let Some(net) = upstream.network() {
        listener = listener.with("listener_filters", &[original_destination()]);
        // Again: nothing but what was redirected, or it would come back for ever.
        let prefix = object! {
            "address_prefix": net.address().to_string(),
            "prefix_len": u32::from(net.bits()),
        };
        let only = object! {"destination_port": upstream.port, "prefix_ranges": [prefix]};
        chain = chain.with("filter_chain_match", &only);
    }
    listener.with("filter_chains", &[chain])
}

/// Goes on to where the connection was to go before it was redirected.
pub(super) fn original_cluster(name: &str) -> Json {
    object! {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
    }
}

fn original_destination() -> Json {
    let kind = "filters.listener.original_dst.v3.OriginalDst";
    object! {
        "name": "envoy.filters.listener.original_dst",
        "typed_config": typed(kind, object! {}),
    }
}
