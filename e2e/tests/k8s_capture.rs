//! INJ-13, INJ-14: captured pods with the real Envoy and real nftables rules, IPv4 and IPv6.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::pods::{self, Place, Pod};
use e2e::tls::{self, Credentials};
use e2e::{Domain, Settings, kubelet, load, wait};
use serde_json::{Value, json};
use testkit::skipped;

const RULES: &str = "envoy: {listenAddress: '::', concurrency: 1}\n";

/// Why this user cannot set rules here; none when it can.
fn unable() -> Option<String> {
    if let Some(why) = kubelet::unable() {
        return Some(why);
    }
    let tools = ["nsenter", "setpriv"].map(|tool| Command::new(tool).arg("--version").output());
    let all = tools
        .iter()
        .all(|tool| tool.as_ref().is_ok_and(|output| output.status.success()));
    (!all).then(|| {
        "`nsenter` or `setpriv` is missing (Debian: apt-get install util-linux)".to_owned()
    })
}

fn pod(name: &str, annotations: Value, container: &Value) -> Value {
    let mut container = container.clone();
    container["name"] = json!("app");
    container["image"] = json!("app");
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {"containers": [container]},
    });
    pod["metadata"]["annotations"]["signet.dev/inject"] = json!("envoy");
    pod
}

fn backend() -> Value {
    let annotations = json!({
        "signet.dev/capture": "inbound",
        "signet.dev/capture-skip-ports": "9100",
        "signet.dev/allow": "spiffe://example.org/frontend",
    });
    let container = json!({
        "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9000}, {"containerPort": 9100}],
        "startupProbe": {"tcpSocket": {"port": 9000}},
        "readinessProbe": {"httpGet": {"path": "/echo?deep=1", "port": "web", "httpHeaders": [{"name": "x-probe", "value": "yes"}]}},
        "livenessProbe": {"tcpSocket": {"port": 9100}},
    });
    pod("backend", annotations, &container)
}

fn frontend() -> Value {
    let peer = "spiffe://example.org/backend";
    let annotations = json!({
        "signet.dev/capture": "outbound",
        "signet.dev/upstreams": format!(
            "9090=10.77.0.2:8080={peer}, 9091=[fd77::/64]:8080={peer}, tcp://9092=10.77.0.0/24:9000={peer}"
        ),
    });
    pod("frontend", annotations, &json!({}))
}

/// Everything that runs: dropped, it is gone.
struct Shop {
    backend: Pod,
    frontend: Pod,
    node: Place,
    domain: Domain,
}

impl Shop {
    /// Both pods' apps, and no rules and no Envoys yet.
    async fn open() -> Result<Self> {
        let domain = Domain::start(Settings::default()).await?;
        let node = Place::node(domain.folder()).await?;
        let mut places = Vec::new();
        for (name, number) in [("backend", 2), ("frontend", 3)] {
            places.push(Place::on(&node, domain.folder(), name, number).await?);
        }
        let (frontend_place, mut backend_place) =
            (places.pop().context("two")?, places.pop().context("two")?);
        for port in [8080, 9100] {
            backend_place.serve(port).await?;
        }
        let spec = pods::inject(&domain, &backend(), RULES)?;
        let backend = Pod::new(&domain, backend_place, "backend", spec).await?;
        let spec = pods::inject(&domain, &frontend(), RULES)?;
        let frontend = Pod::new(&domain, frontend_place, "frontend", spec).await?;
        Ok(Self {
            backend,
            frontend,
            node,
            domain,
        })
    }

    async fn start(&mut self) -> Result<()> {
        for pod in [&mut self.backend, &mut self.frontend] {
            pod.capture(&[])?;
            pod.start_envoy(&self.domain).await?;
        }
        Ok(())
    }

    /// The backend at this port, in both families.
    fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.backend
            .place
            .addresses()
            .map(|address| SocketAddr::new(address, port))
    }

    async fn mint(&self, name: &str) -> Result<Credentials> {
        let folder = self.domain.path(&format!("minted-{name}"));
        std::fs::create_dir(&folder)?;
        let (id, written) = (
            self.domain.id(&format!("/{name}")),
            folder.to_string_lossy(),
        );
        let args = ["x509", "mint", "-spiffeID", &id, "-write", &*written];
        self.domain.server_cli(&args).await?;
        Credentials::read(&folder)
    }
}

async fn says(place: &Place, address: SocketAddr, expected: &str) -> Result<()> {
    let answer = place
        .get(address, "/")
        .await
        .with_context(|| format!("ask {address}"))?;
    ensure!(
        answer.body.trim() == expected,
        "{address}: {} {}",
        answer.status,
        answer.body
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn inj_14_captured_pods_speak_mtls_and_nobody_else_gets_in() -> Result<()> {
    if let Some(why) = unable() {
        skipped(why);
        return Ok(());
    }
    let mut shop = Shop::open().await?;
    shop.backend.place.serve(9000).await?;
    // Without rules everybody gets everywhere.
    for port in [8080, 9000, 9100] {
        for address in shop.at(port) {
            says(&shop.node, address, "hello nobody").await?;
        }
    }
    shop.start().await?;

    // A client without an SVID: cut off at the app's ports, let in where the annotation says so.
    for port in [8080, 9000] {
        for address in shop.at(port) {
            let answer = shop.node.get(address, "/").await;
            ensure!(
                answer.is_err(),
                "{address} answers in the clear: {answer:?}"
            );
        }
    }
    for address in shop.at(9100) {
        says(&shop.node, address, "hello nobody").await?;
        says(&shop.frontend.place, address, "hello nobody").await?;
    }

    // The app of the other pod connects as ever, and is known by its SVID.
    let [first, _] = shop.at(8080);
    wait::until("both Envoys to have their SVIDs", || async {
        let answer = shop.frontend.place.get(first, "/").await?;
        Ok((answer.status == 200).then_some(()))
    })
    .await?;
    let before = connections(&shop).await?;
    for address in shop.at(8080) {
        says(
            &shop.frontend.place,
            address,
            "hello spiffe://example.org/frontend",
        )
        .await?;
    }
    let [tcp, _] = shop.at(9000);
    says(&shop.frontend.place, tcp, "hello nobody").await?;

    // What Envoy sends goes to its peer: were it redirected, Envoy would take more connections than the app has made.
    let after = connections(&shop).await?;
    ensure!(
        after == before.map(|seen| seen + 1),
        "{before:?} connections became {after:?} for one of the app's each"
    );
    callers_are_told_apart(&shop).await?;
    nothing_comes_back_for_ever(&shop).await
}

/// The allow-list holds in front of the app's own port, for requests and for bytes.
async fn callers_are_told_apart(shop: &Shop) -> Result<()> {
    let (friend, other) = (shop.mint("frontend").await?, shop.mint("other").await?);
    for address in shop.at(8080) {
        let ask = async |who| tls::get_on(shop.node.connect(address).await?, who).await;
        ensure!(
            ask(Some(&friend)).await?.status == 200,
            "a caller that is allowed"
        );
        ensure!(
            ask(Some(&other)).await?.status == 403,
            "a caller that is not allowed"
        );
        ensure!(ask(None).await.is_err(), "a caller without a certificate");
    }
    let [bytes, _] = shop.at(9000);
    let ask = async |who| tls::get_on(shop.node.connect(bytes).await?, who).await;
    ensure!(
        ask(Some(&friend)).await?.status == 200,
        "a caller that is allowed"
    );
    ensure!(
        ask(Some(&other)).await.is_err(),
        "a caller that is not allowed"
    );
    Ok(())
}

/// How many connections the frontend's Envoy has taken for each of its upstreams.
async fn connections(shop: &Shop) -> Result<[u64; 3]> {
    let mut seen = [0; 3];
    for (count, (figure, upstream)) in seen.iter_mut().zip([
        ("envoy_http_downstream_cx_total", "upstream_9090"),
        ("envoy_http_downstream_cx_total", "upstream_9091"),
        ("envoy_tcp_downstream_cx_total", "upstream_9092"),
    ]) {
        let label = format!("\"{upstream}\"");
        *count = shop.frontend.figure(figure, &label).await?;
    }
    Ok(seen)
}

/// Ports that only redirected connections are for cut off all others, rather than call themselves.
async fn nothing_comes_back_for_ever(shop: &Shop) -> Result<()> {
    let before = connections(shop).await?;
    for address in shop.at(15006) {
        let answer = shop.node.get(address, "/").await;
        ensure!(answer.is_err(), "{address}: {answer:?}");
    }
    for port in [9091, 9092] {
        let local = e2e::ports::local(port);
        let answer = shop.frontend.place.get(local, "/").await;
        ensure!(answer.is_err(), "{port}: {answer:?}");
    }
    let after = connections(shop).await?;
    ensure!(after == before, "{before:?} connections became {after:?}");
    Ok(())
}

/// The kubelet has no SVID, and sees the app's health all the same; and nothing else of the app.
#[tokio::test(flavor = "multi_thread")]
async fn inj_13_probes_get_through() -> Result<()> {
    if let Some(why) = unable() {
        skipped(why);
        return Ok(());
    }
    let mut shop = Shop::open().await?;
    shop.start().await?;
    let container = shop.backend.spec["spec"]["containers"][0].clone();
    // Not captured, so not changed.
    ensure!(container["livenessProbe"] == json!({"tcpSocket": {"port": 9100}}));
    let address = shop.backend.place.addresses()[0];

    let seen = becomes(&shop.node, address, &container["readinessProbe"], 200).await?;
    ensure!(seen == "/echo?deep=1 yes", "the app saw {seen}");
    becomes(&shop.node, address, &container["startupProbe"], 503).await?;
    let late = shop.backend.place.serve(9000).await?;
    becomes(&shop.node, address, &container["startupProbe"], 200).await?;
    late.abort();
    becomes(&shop.node, address, &container["startupProbe"], 503).await?;

    let probes = SocketAddr::new(address, 15021);
    for path in [
        "/",
        "/echo",
        "/signet/app/readiness/x",
        "/signet/app/liveness",
    ] {
        let answer = shop.node.get(probes, path).await?;
        ensure!(answer.status == 404, "{path}: {}", answer.status);
    }
    Ok(())
}

/// Asks as the kubelet does until the answer has this status; tells its body.
async fn becomes(node: &Place, pod: IpAddr, probe: &Value, status: u16) -> Result<String> {
    let get = &probe["httpGet"];
    let port = u16::try_from(get["port"].as_u64().context("a port")?)?;
    let path = get["path"].as_str().context("a path")?;
    let at = SocketAddr::new(pod, port);
    wait::until(&format!("{path} to answer {status}"), || async {
        let headers = get["httpHeaders"].as_array();
        let headers = headers.into_iter().flatten();
        let headers: Vec<(&str, &str)> = headers
            .filter_map(|header| Some((header["name"].as_str()?, header["value"].as_str()?)))
            .collect();
        let answer = load::get_with(node.connect(at).await?, path, &headers).await?;
        ensure!(
            answer.status == status,
            "{}: {}",
            answer.status,
            answer.body
        );
        Ok(Some(answer.body.trim().to_owned()))
    })
    .await
}

/// The kernel holds what `--dry-run` prints, after any number of runs; and lets go of it.
#[tokio::test(flavor = "multi_thread")]
async fn rules_are_what_is_printed() -> Result<()> {
    if let Some(why) = unable() {
        skipped(why);
        return Ok(());
    }
    let shop = Shop::open().await?;
    let nft = Command::new("nft").arg("--version").output();
    let nft = nft.is_ok_and(|output| output.status.success());
    if !nft {
        skipped("the listing by `nft` (Debian: apt-get install nftables)");
    }
    for pod in [&shop.backend, &shop.frontend] {
        let printed = pod.capture(&["--dry-run"])?;
        let listed = || -> Result<String> {
            let output = pod.place.run(&["nft", "list", "ruleset"])?;
            Ok(String::from_utf8(output.stdout)?)
        };
        if nft {
            ensure!(listed()?.is_empty(), "a dry run changes nothing");
        }
        for run in 1..=3 {
            pod.capture(&[])?;
            if nft {
                ensure!(listed()? == printed, "run {run}: {}\n{printed}", listed()?);
            }
        }
    }
    // Nobody listens there yet: the rules are what stands between.
    let [address, _] = shop.at(8080);
    ensure!(shop.node.get(address, "/").await.is_err(), "{address}");
    shop.backend.place.signet(&["k8s", "capture", "--remove"])?;
    shop.backend.place.signet(&["k8s", "capture", "--remove"])?;
    says(&shop.node, address, "hello nobody").await?;
    Ok(())
}
