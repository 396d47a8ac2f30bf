//! The kubelet starts an app once its sidecar's startup probe is answered: that must not be before the pod has its identity.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use e2e::app::App;
use e2e::pods::inject;
use e2e::{Domain, Process, Settings, load, mesh, ports, wait};
use serde_json::{Value, json};

const RULES: &str = "envoy: {listenAddress: 127.0.0.1, concurrency: 1}\nnativeSidecars: always\n";

/// The injected Envoy of a pod, run as its spec says but for the folders of its sockets.
struct Sidecar {
    process: Process,
    /// What the kubelet asks before it starts the app.
    startup: (SocketAddr, String),
}

impl Sidecar {
    /// The Envoy that `annotations` bring a pod.
    fn start(domain: &Domain, name: &str, annotations: &Value) -> Result<Self> {
        let metrics = ports::free()?;
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        pod["metadata"]["annotations"]["signet.dev/inject"] = json!("envoy");
        pod["metadata"]["annotations"]["signet.dev/metrics-port"] = json!(metrics.to_string());
        let pod = inject(domain, &pod, RULES)?;
        let sidecar = &pod["spec"]["initContainers"][0];
        ensure!(
            sidecar["restartPolicy"] == "Always",
            "it holds the app only as a native sidecar: {sidecar}"
        );
        let probe = &sidecar["startupProbe"]["httpGet"];
        let path = probe["path"].as_str().context("a startup probe")?;
        ensure!(probe["port"] == metrics, "{probe}");
        let admin = domain.path(&format!("{name}-admin.sock"));
        let socket = domain.agent_socket();
        let args = sidecar["args"].as_array().context("arguments")?;
        let args = args.iter().filter_map(Value::as_str).map(|argument| {
            argument
                .replace(
                    "/spiffe-workload-api/spire-agent.sock",
                    &socket.to_string_lossy(),
                )
                .replace("/run/signet/envoy/admin.sock", &admin.to_string_lossy())
                .replace("$(POD_NAME)", name)
        });
        let program = mesh::program(domain, name)?;
        let log = domain.path(&format!("{name}-envoy.log"));
        Ok(Self {
            process: Process::start(name, &program, args, &log)?,
            startup: (ports::local(metrics), path.to_owned()),
        })
    }

    /// Whether the kubelet would start the app now.
    async fn holds_no_more(&self) -> bool {
        let (address, path) = &self.startup;
        let answer = load::get(*address, path).await;
        answer.is_ok_and(|answer| (200..400).contains(&answer.status))
    }

    async fn lets_the_app_start(&mut self) -> Result<()> {
        let log = self.process.log_path().to_owned();
        wait::until(&format!("an identity, see {}", log.display()), async || {
            Ok(self.holds_no_more().await.then_some(()))
        })
        .await?;
        self.process.check_running()
    }
}

/// An entry for the program of this sidecar.
async fn register(domain: &Domain, name: &str) -> Result<()> {
    let program = domain.path(&format!("{name}-envoy"));
    domain.register(&format!("/{name}"), &program).await?;
    Ok(())
}

/// One Envoy in front of an app, and one that only calls it. Neither is ready while no entry is theirs, however long others
/// have been; with the entries they are, and the first call of the app gets through.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_held_until_its_envoy_has_an_identity() -> Result<()> {
    let mut domain = Domain::start(Settings::default()).await?;
    let app = App::start().await?;
    let (mtls, local) = (ports::free()?, ports::free()?);
    let backend = json!({"signet.dev/app-port": app.port.to_string(), "signet.dev/port": mtls.to_string(),
        "signet.dev/allow": "spiffe://example.org/frontend"});
    let peer = domain.id("/backend");
    let frontend = json!({"signet.dev/upstreams": format!("{local}=127.0.0.1:{mtls}={peer}")});
    let mut early = [
        Sidecar::start(&domain, "backend", &backend)?,
        Sidecar::start(&domain, "frontend", &frontend)?,
    ];
    let log = domain.agent()?.log_path().to_owned();
    for name in ["backend", "frontend"] {
        wait::until(
            "the agent to tell that it has nothing for them",
            async || {
                let log = std::fs::read_to_string(&log)?;
                let mut told = log
                    .lines()
                    .filter(|line| line.contains("no registration entry"));
                Ok(told.any(|line| line.contains(name)).then_some(()))
            },
        )
        .await?;
    }
    // Who comes later and is registered gets ready: time enough for the others, were it only a matter of time.
    for number in 0..2 {
        let name = format!("registered-{number}");
        register(&domain, &name).await?;
        let annotations = json!({"signet.dev/app-port": app.port.to_string(), "signet.dev/port": ports::free()?.to_string()});
        let mut later = Sidecar::start(&domain, &name, &annotations)?;
        later.lets_the_app_start().await?;
        for sidecar in &early {
            ensure!(
                !sidecar.holds_no_more().await,
                "an app would be started without an identity"
            );
        }
    }

    for name in ["backend", "frontend"] {
        register(&domain, name).await?;
    }
    for sidecar in &mut early {
        sidecar.lets_the_app_start().await?;
    }
    let first = load::get(ports::local(local), "/").await?;
    ensure!(first.status == 200, "the first call: {first:?}");
    ensure!(
        first.body.trim() == "hello spiffe://example.org/frontend",
        "{first:?}"
    );
    Ok(())
}
