//! Services inside the node's network: their names in every pod's `/etc/hosts`, and their addresses relayed to ready
//! endpoints, as kube-proxy did in its first, userspace form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::node::{Node, follow};
use crate::cluster::API_SERVICE;
use crate::netns::NetNs;
use crate::ports;

type Routes = BTreeMap<SocketAddr, Vec<SocketAddr>>;

pub(super) async fn run(node: Arc<Node>, api_port: u16) {
    let services: Api<Service> = Api::all(node.admin());
    let slices: Api<EndpointSlice> = Api::all(node.admin());
    let (known, seen) = watch::channel((Vec::new(), Vec::new()));
    let all = watcher::Config::default;
    let services = follow(services, all(), |all| {
        known.send_modify(|(services, _)| *services = all);
    });
    let slices = follow(slices, all(), |all| {
        known.send_modify(|(_, slices)| *slices = all);
    });
    tokio::join!(services, slices, relay(node, api_port, seen));
}

type Known = (Vec<Arc<Service>>, Vec<Arc<EndpointSlice>>);

async fn relay(node: Arc<Node>, api_port: u16, mut known: watch::Receiver<Known>) {
    let mut relays = JoinSet::new();
    let inner = node.network();
    if let Ok(address) = format!("{API_SERVICE}:443").parse() {
        let (_, to) = watch::channel(vec![ports::local(api_port)]);
        if let Ok(listener) = inner.listen(address).await {
            relays.spawn(serve(listener, NetNs::machine(), to));
        }
    }
    let mut running: BTreeMap<SocketAddr, watch::Sender<Vec<SocketAddr>>> = BTreeMap::new();
    while known.changed().await.is_ok() {
        let (services, slices) = known.borrow_and_update().clone();
        let (hosts, routes) = lay_out(&services, &slices);
        tell(&node, hosts);
        // A relay ends when its sender goes.
        running.retain(|address, _| routes.contains_key(address));
        for (address, to) in routes {
            if let Some(relay) = running.get(&address) {
                relay.send_replace(to);
                continue;
            }
            if let Ok(listener) = inner.listen(address).await {
                let (sender, to) = watch::channel(to);
                relays.spawn(serve(listener, inner.clone(), to));
                running.insert(address, sender);
            }
        }
    }
}

/// Passes connections on, to each endpoint in turn.
async fn serve(listener: TcpListener, network: NetNs, mut to: watch::Receiver<Vec<SocketAddr>>) {
    let mut turn = 0_usize;
    // The API server's relay has no sender; its address stays.
    let fixed = to.has_changed().is_err();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = async { while to.changed().await.is_ok() {} }, if !fixed => return,
        };
        let Ok((mut outer, _)) = accepted else { return };
        turn = turn.wrapping_add(1);
        let endpoints = to.borrow();
        let Some(endpoint) = endpoints.get(turn % endpoints.len().max(1)).copied() else {
            continue;
        };
        drop(endpoints);
        let network = network.clone();
        tokio::spawn(async move {
            if let Ok(mut inner) = network.connect(endpoint).await {
                let _ = copy_bidirectional(&mut outer, &mut inner).await;
            }
        });
    }
}

/// Rewrites the hosts files in place: running containers have them mounted.
fn tell(node: &Node, hosts: String) {
    let changed = node.hosts().send_if_modified(|known| {
        let changed = *known != hosts;
        known.clone_from(&hosts);
        changed
    });
    let files = fs::read_dir(node.path("hosts"));
    for file in files.into_iter().flatten().flatten().filter(|_| changed) {
        let own = fs::read_to_string(file.path()).unwrap_or_default();
        let own: Vec<&str> = own.lines().take(2).collect();
        let _ = fs::write(file.path(), format!("{}\n{hosts}", own.join("\n")));
    }
}

/// Lines of `/etc/hosts`, and which endpoints stand behind which address.
fn lay_out(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> (String, Routes) {
    let (mut hosts, mut routes) = (String::new(), Routes::new());
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let name = service.metadata.name.clone().unwrap_or_default();
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let own = || {
            slices
                .iter()
                .filter(|slice| belongs(slice, &namespace, &name))
        };
        let address: Option<IpAddr> = spec
            .cluster_ip
            .as_deref()
            .and_then(|address| address.parse().ok());
        let addresses = match address {
            Some(address) => vec![address.to_string()],
            None => own().flat_map(|slice| ready(slice)).collect(),
        };
        for address in addresses {
            let _ = writeln!(
                hosts,
                "{address} {name}.{namespace} {name}.{namespace}.svc {name}.{namespace}.svc.cluster.local"
            );
        }
        let Some(address) = address.filter(|address| address.to_string() != API_SERVICE) else {
            continue;
        };
        for port in spec.ports.iter().flatten() {
            let to = own().flat_map(|slice| behind(slice, port).unwrap_or_default());
            if let Ok(number) = u16::try_from(port.port) {
                routes.insert(SocketAddr::from((address, number)), to.collect());
            }
        }
    }
    (hosts, routes)
}

fn belongs(slice: &EndpointSlice, namespace: &str, service: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    slice.metadata.namespace.as_deref() == Some(namespace)
        && labels.and_then(|labels| labels.get("kubernetes.io/service-name"))
            == Some(&service.to_owned())
}

fn ready(slice: &EndpointSlice) -> Vec<String> {
    let endpoints = slice.endpoints.iter().flatten();
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true)
    });
    ready
        .flat_map(|endpoint| endpoint.addresses.clone())
        .collect()
}

/// The ready endpoints behind this port of the service.
fn behind(slice: &EndpointSlice, port: &ServicePort) -> Result<Vec<SocketAddr>> {
    let mut ports = slice.ports.iter().flatten();
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let port = ports.find(|one| name(&one.name) == name(&port.name));
    let number = port.and_then(|port| port.port).context("such a port")?;
    let number = u16::try_from(number)?;
    let addresses = ready(slice).into_iter();
    addresses
        .map(|address| Ok(SocketAddr::from((address.parse::<IpAddr>()?, number))))
        .collect()
}
