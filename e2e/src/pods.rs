//! Pods without a cluster: what `signet k8s inject` makes of a pod, run by hand in network namespaces of their own.
//!
//! ```text
//! node (no identity, plays the kubelet) ─ br0 ─┬─ pod 10.77.0.2, fd77::2
//!                                              └─ pod 10.77.0.3, fd77::3
//! ```
//!
//! A pod's namespaces, and with them its rules and interfaces, end with the process that holds them.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::cluster::Tethered;
use crate::load::{self, Answer};
use crate::netns::NetNs;
use crate::{Domain, app, binaries, mesh, wait};

/// Whom the injector lets Envoy run as.
const ENVOY_USER: &str = "65532";

/// A network namespace on the bridge.
#[derive(Debug)]
pub struct Place {
    hold: Tethered,
    /// Its last byte in both families.
    number: u8,
    apps: Vec<AbortHandle>,
}

/// An injected pod at its place.
#[derive(Debug)]
pub struct Pod {
    /// Where.
    pub place: Place,
    /// As injected.
    pub spec: Value,
    name: String,
    folder: PathBuf,
    envoy: Option<Tethered>,
}

impl Place {
    async fn hold(folder: &Path, name: &str, number: u8) -> Result<Self> {
        let ready = folder.join(format!("{name}-held"));
        let log = folder.join("places.log");
        let mut hold = Tethered::shim(name, ["hold-pod".into(), ready.clone()], &log)?;
        wait::until("a network namespace", || {
            let alive = hold.check_running();
            let there = ready.exists();
            async move {
                alive?;
                Ok(there.then_some(()))
            }
        })
        .await?;
        Ok(Self {
            hold,
            number,
            apps: Vec::new(),
        })
    }

    /// The node, with the bridge.
    ///
    /// # Errors
    /// When the network cannot be made.
    pub async fn node(folder: &Path) -> Result<Self> {
        let node = Self::hold(folder, "node", 1).await?;
        node.ip(&[
            "link set lo up",
            "link add br0 type bridge",
            "addr add 10.77.0.1/24 dev br0",
            "-6 addr add fd77::1/64 dev br0 nodad",
            "link set br0 up",
        ])
        .await?;
        Ok(node)
    }

    /// A place on the node's bridge; `number` is the last byte of its addresses.
    ///
    /// # Errors
    /// When the network cannot be made.
    pub async fn on(node: &Self, folder: &Path, name: &str, number: u8) -> Result<Self> {
        let place = Self::hold(folder, name, number).await?;
        let pid = place.hold.pid();
        node.ip(&[
            &format!("link add v{number} type veth peer name eth0 netns {pid}"),
            &format!("link set v{number} master br0 up"),
        ])
        .await?;
        let v4 = format!("addr add 10.77.0.{number}/24 dev eth0");
        let v6 = format!("-6 addr add fd77::{number:x}/64 dev eth0 nodad");
        place
            .ip(&["link set lo up", &v4, &v6, "link set eth0 up"])
            .await?;
        Ok(place)
    }

    async fn ip(&self, lines: &[&str]) -> Result<()> {
        let lines = lines.iter().map(ToString::to_string).collect();
        self.network().ip(lines).await
    }

    fn network(&self) -> NetNs {
        NetNs::of(self.hold.pid())
    }

    /// Its addresses, IPv4 and IPv6.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        let number = u16::from(self.number);
        [
            Ipv4Addr::new(10, 77, 0, self.number).into(),
            Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number).into(),
        ]
    }

    /// A connection from here.
    ///
    /// # Errors
    /// When nobody takes it.
    pub async fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        self.network().connect(address).await
    }

    /// One plain GET from here.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn get(&self, address: SocketAddr, path: &str) -> Result<Answer> {
        load::get_on(self.connect(address).await?, path).await
    }

    /// The app, listening here on all addresses of both families.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn serve(&mut self, port: u16) -> Result<AbortHandle> {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener: TcpListener = self.network().listen(all).await?;
        let task = tokio::spawn(app::serve(listener)).abort_handle();
        self.apps.push(task.clone());
        Ok(task)
    }

    /// Runs `signet` here.
    ///
    /// # Errors
    /// When it fails; with what it printed.
    pub fn signet(&self, words: &[&str]) -> Result<()> {
        let signet = binaries::signet()?;
        let signet = signet.to_string_lossy();
        let mut all = vec![&*signet];
        all.extend_from_slice(words);
        let output = self.run(&all)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "signet {}: {told}",
            words.join(" ")
        );
        Ok(())
    }

    /// Runs a program here.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.hold.pid()))
            .arg("--")
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("start nsenter")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for app in &self.apps {
            app.abort();
        }
    }
}

/// `signet k8s inject` with these rules.
///
/// # Errors
/// When it refuses the pod; with what it printed.
pub fn inject(domain: &Domain, pod: &Value, rules: &str) -> Result<Value> {
    let config = domain.write("rules.yaml", rules)?;
    injected(
        domain.signet(),
        pod,
        &["--config", &config.to_string_lossy()],
    )
}

/// The pod after `signet k8s inject -f - ARGS`.
///
/// # Errors
/// When it refuses the pod; with what it printed.
pub fn injected(signet: &Path, pod: &Value, args: &[&str]) -> Result<Value> {
    let mut child = Command::new(signet)
        .args(["k8s", "inject", "-f", "-"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(pod.to_string().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "signet k8s inject: {told}");
    serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON; told: {told}"))
}

impl Pod {
    /// The injected pod `spec`, at a place; nothing of it runs yet. It is registered as `/{name}`.
    ///
    /// # Errors
    /// When Envoy cannot be copied or registered.
    pub async fn new(domain: &Domain, place: Place, name: &str, spec: Value) -> Result<Self> {
        // Envoy runs as another user, who must get to its program and to the agent's socket.
        let agent = domain.path("agent");
        for folder in [domain.folder(), &agent] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
        }
        let program = mesh::program(domain, name)?;
        domain.register(&format!("/{name}"), &program).await?;
        let folder = domain.path(&format!("{name}-admin"));
        std::fs::create_dir(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
        Ok(Self {
            place,
            spec,
            name: name.to_owned(),
            folder,
            envoy: None,
        })
    }

    fn args(&self, container: &str) -> Result<Vec<String>> {
        let all = self.spec["spec"]["initContainers"].as_array();
        let mut all = all.into_iter().flatten();
        let found = all.find(|one| one["name"] == container);
        let args = found.and_then(|one| one["args"].as_array());
        let args = args.with_context(|| format!("no arguments of {container}"))?;
        let args = args.iter().filter_map(Value::as_str);
        Ok(args.map(str::to_owned).collect())
    }

    /// Runs the init container: root with `NET_ADMIN` and no other capability. `more`: arguments behind its own.
    ///
    /// # Errors
    /// When it fails; with what it printed.
    pub fn capture(&self, more: &[&str]) -> Result<String> {
        let mut args = self.args("signet-capture")?;
        args.extend(more.iter().map(ToString::to_string));
        let signet = binaries::signet()?;
        let signet = signet.to_string_lossy();
        let mut words = vec![
            "setpriv",
            "--bounding-set=-all,+net_admin",
            "--inh-caps=-all",
            "--no-new-privs",
            &*signet,
        ];
        words.extend(args.iter().map(String::as_str));
        let output = self.place.run(&words)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "signet {}: {told}", args.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts Envoy with the sidecar's own arguments, as its user, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or has no certificate in time.
    pub async fn start_envoy(&mut self, domain: &Domain) -> Result<()> {
        let socket = domain.agent_socket();
        let admin = self.folder.join("admin.sock");
        let address = self.place.addresses()[0].to_string();
        let args = self.args("signet-envoy")?.into_iter().map(|argument| {
            argument
                .replace(
                    "/spiffe-workload-api/spire-agent.sock",
                    &socket.to_string_lossy(),
                )
                .replace("/run/signet/envoy/admin.sock", &admin.to_string_lossy())
                .replace("$(SIGNET_POD_IP)", &address)
                .replace("$(POD_NAME)", &self.name)
        });
        let program = domain.path(&format!("{}-envoy", self.name));
        let mut words: Vec<OsString> = vec![
            format!("--net=/proc/{}/ns/net", self.place.hold.pid()).into(),
            "--".into(),
            "setpriv".into(),
            "--pdeathsig=KILL".into(),
            format!("--reuid={ENVOY_USER}").into(),
            format!("--regid={ENVOY_USER}").into(),
            "--clear-groups".into(),
            program.into(),
        ];
        words.extend(args.map(OsString::from));
        let log = domain.path(&format!("{}-envoy.log", self.name));
        let nsenter = Path::new("/usr/bin/nsenter");
        let mut envoy = Tethered::start(&self.name, nsenter, words, &log)?;
        let place = &self.place;
        wait::until("Envoy to be ready", || {
            let alive = envoy.check_running();
            async move {
                alive?;
                let answer = place.get(SocketAddr::new(place.addresses()[0], 15020), "/ready");
                Ok((answer.await?.status == 200).then_some(()))
            }
        })
        .await
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        self.envoy = Some(envoy);
        Ok(())
    }

    /// The sum of a figure of Envoy's over the series whose labels hold `label`.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn figure(&self, name: &str, label: &str) -> Result<u64> {
        let at = SocketAddr::new(self.place.addresses()[0], 15020);
        let page = self.place.get(at, "/stats/prometheus").await?.body;
        let lines = page
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(values.sum())
    }
}
