//! K5: thousands of pods, and everything around the controller fails in turn: no entry is lost, none is left over.
#![expect(
    clippy::disallowed_methods,
    reason = "the size of the crowd is a word of the environment"
)]

use std::collections::BTreeSet;
use std::env;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::Process;
use e2e::bench::percentile;
use e2e::controller::{CLUSTER, Crowd, ELECTION, Line, Stage, Witness, path};
use e2e::wait;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How many pods there are unless `SIGNET_CROWD` says otherwise; the figures are taken with 5 000.
const PODS: usize = 1000;

const NODES: usize = 10;

/// How many pods come, go or end in each act.
const STIR: usize = 60;

/// How many pods the time to an entry is taken of.
const TIMED: usize = 100;

/// How many pods the witness looks at.
const WATCHED: usize = 20;

/// Of all other namespaces only this one's pods are touched.
const CALM: &str = "calm";
const BUSY: &str = "busy";

/// The play: what stands, and what the rules say by now.
struct Play {
    controllers: Vec<Process>,
    stage: Stage,
    crowd: Crowd,
    /// In the path of every pod's ID.
    version: u32,
    /// The next pod's number in [`BUSY`].
    next: usize,
    /// The oldest pod there.
    oldest: usize,
}

impl Play {
    async fn new() -> Result<Self> {
        let stage = Stage::new().await?;
        let crowd = Crowd::new(&stage, NODES).await?;
        for namespace in [CALM, BUSY] {
            stage.cluster.namespace_named(namespace, &[]).await?;
        }
        let rule = |name: &str, spec: Value| json!({ "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID", "metadata": { "name": name }, "spec": spec });
        let named = json!({
            "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/pod/{{ .PodMeta.Name }}",
            "podSelector": { "matchLabels": { "named": "yes" } },
        });
        stage
            .cluster
            .apply(&json!([rule("all", template(1)), rule("named", named)]))
            .await?;
        Ok(Self {
            controllers: Vec::new(),
            stage,
            crowd,
            version: 1,
            next: 0,
            oldest: 0,
        })
    }

    /// Every pod's ID changes.
    async fn change(&mut self) -> Result<()> {
        self.version += 1;
        let change = json!({ "spec": template(self.version) });
        self.stage.change("all", &change).await
    }

    /// Some pods come, some end, some go, all at once.
    async fn stir(&mut self) -> Result<()> {
        let come = self.next..self.next + STIR;
        let (go, end) = (
            self.oldest..self.oldest + STIR,
            self.oldest + STIR..self.oldest + STIR + STIR / 2,
        );
        (self.next, self.oldest) = (come.end, end.end);
        let labels = named();
        tokio::try_join!(
            self.crowd.arrive(BUSY, come, &labels),
            self.crowd.leave(BUSY, go),
            self.crowd.finish(BUSY, end),
        )?;
        Ok(())
    }

    /// Exactly what the API server's pods call for, by the rules as they are.
    async fn settles(&self, act: &str) -> Result<()> {
        let started = Instant::now();
        let pods = self.crowd.all().await?;
        let expected: Vec<Line> = pods
            .iter()
            .map(|pod| self.lines(pod))
            .collect::<Result<Vec<_>>>()?
            .concat();
        let count = expected.len();
        let settled = self.stage.entries().until_exactly(expected).await;
        settled.with_context(|| format!("{act}\n{}", self.logs()))?;
        testkit::aloud(format_args!(
            "{act}: {count} entries after {:?}",
            started.elapsed()
        ));
        Ok(())
    }

    /// What the controllers said last.
    fn logs(&self) -> String {
        const LINES: usize = 30;
        let log = |controller: &Process| {
            let log = controller.log().unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(LINES)..].join("\n")
        };
        self.controllers
            .iter()
            .map(log)
            .collect::<Vec<_>>()
            .join("\n\n")
    }

    /// Which of the controllers that run leads, by what they say.
    fn leader(&self) -> Result<Option<usize>> {
        for (number, controller) in self.controllers.iter().enumerate() {
            let log = match controller.pid() {
                Ok(_) => controller.log()?,
                Err(_) => continue,
            };
            let last = log.lines().rev().find(|line| line.contains("leading"));
            if last.is_some_and(|line| !line.contains("no longer")) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    fn lines(&self, pod: &Pod) -> Result<Vec<Line>> {
        let text = |value: &Option<String>| value.clone().context("a pod's field");
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return Ok(Vec::new());
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = self.crowd.node(node.context("a node")?)?;
        let name = text(&pod.metadata.name)?;
        let namespace = text(&pod.metadata.namespace)?;
        let line = |path: String, dns: Vec<String>| -> Result<Line> {
            Ok(Line {
                pod: text(&pod.metadata.uid)?,
                path,
                parent: format!("/spire/agent/k8s_psat/{CLUSTER}/{node}"),
                dns,
            })
        };
        let version = self.version;
        let mut lines = vec![line(
            format!("/v{version}/ns/{namespace}/sa/default"),
            vec![format!("{name}.v{version}.{namespace}.svc.cluster.local")],
        )?];
        let labels = pod.metadata.labels.as_ref();
        if labels.is_some_and(|labels| labels.get("named").is_some_and(|is| is == "yes")) {
            lines.push(line(format!("/pod/{name}"), Vec::new())?);
        }
        Ok(lines)
    }
}

/// What the rule `named` takes.
fn named() -> Value {
    json!({ "named": "yes" })
}

fn template(version: u32) -> Value {
    json!({
        "spiffeIDTemplate": format!("spiffe://{{{{ .TrustDomain }}}}/v{version}/ns/{{{{ .PodMeta.Namespace }}}}/sa/{{{{ .PodSpec.ServiceAccountName }}}}"),
        "dnsNameTemplates": [format!("{{{{ .PodMeta.Name }}}}.v{version}.{{{{ .PodMeta.Namespace }}}}.svc.cluster.local")],
    })
}

fn size() -> Result<usize> {
    match env::var("SIGNET_CROWD") {
        Ok(text) => text.parse().context("SIGNET_CROWD is a number of pods"),
        Err(_) => Ok(PODS),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k5_ctl_07_ctl_08_ctl_17_ctl_18_no_entry_is_lost_and_none_is_left_over_whatever_fails()
-> Result<()> {
    let mut play = Play::new().await?;
    // Without listings of the server that would put right what was missed.
    let config = format!("gcInterval: 1h\n{ELECTION}");
    play.controllers
        .push(play.stage.controller("first", &config)?);
    let by_hand = by_hand(&play.stage).await?;

    let started = Instant::now();
    let watched = arrive(&mut play).await?;
    testkit::aloud(format_args!(
        "the pods are there after {:?}",
        started.elapsed()
    ));
    play.settles("all come").await?;
    let second = play.stage.controller("second", &config)?;
    play.controllers.push(second);
    timed(&play).await?;

    let witness = Witness::start(play.stage.entries(), watched);
    play.change().await?;
    play.stir().await?;
    play.settles("events during a pass").await?;
    broken(&mut play).await?;
    server_killed(&mut play).await?;
    api_server_killed(&mut play).await?;
    leader_killed(&mut play).await?;
    let looks = witness.end().await?;
    testkit::aloud(format_args!(
        "{looks} looks at {WATCHED} pods: never without an entry"
    ));

    let all = play.stage.entries().all().await?;
    ensure!(
        all.iter().any(|entry| entry.id == by_hand),
        "what was registered by hand stays"
    );
    Ok(())
}

/// Somebody else's entry.
async fn by_hand(stage: &Stage) -> Result<String> {
    let program = Path::new("/usr/bin/true");
    stage.domain.register("/by-hand", program).await
}

/// Most pods stay as they are; the others come and go. Gives the UIDs of some that stay.
async fn arrive(play: &mut Play) -> Result<Vec<String>> {
    let size = size()?;
    let busy = size / 4;
    let (none, labels) = (json!({}), named());
    let (mut calm, _) = tokio::try_join!(
        play.crowd.arrive(CALM, 0..size - busy, &none),
        play.crowd.arrive(BUSY, 0..busy, &labels),
    )?;
    play.next = busy;
    calm.truncate(WATCHED);
    Ok(calm)
}

/// From a pod's node, as the API server took it, to its entry.
async fn timed(play: &Play) -> Result<()> {
    let mut took = Vec::new();
    let entries = play.stage.entries();
    for number in 0..TIMED {
        let name = format!("timed-{number}");
        let pod = play
            .stage
            .pod("node-0", CALM, &name, "default", &json!({}))
            .await?;
        let scheduled = Instant::now();
        let uid = pod.metadata.uid.context("a UID")?;
        wait::until("an entry", || async {
            let found = entries.of_pod(&uid).await?;
            Ok((!found.is_empty()).then_some(()))
        })
        .await?;
        took.push(scheduled.elapsed().as_secs_f64());
    }
    let (p50, p99) = (percentile(&took, 0.5), percentile(&took, 0.99));
    testkit::aloud(format_args!(
        "pod scheduled → entry: p50 {p50:.3} s, p99 {p99:.3} s of {TIMED}"
    ));
    ensure!(p99 < 1.0, "{took:?}");
    Ok(())
}

/// A template that cannot be rendered says so, and deletes nothing of the pods that its rule takes. Its selector can be read:
/// who left it loses the entry, and nobody else does.
async fn broken(play: &mut Play) -> Result<()> {
    let template = |text: &str| json!({ "spec": { "spiffeIDTemplate": text } });
    let change = template("spiffe://example.org/pod/{{ .PodMeta.Nam }}");
    play.stage.change("named", &change).await?;
    let condition = play.stage.condition("named", "Degraded", "Invalid").await?;
    ensure!(
        condition["message"].to_string().contains("Nam"),
        "{condition}"
    );
    let before = named_entries(play).await?;
    ensure!(before > STIR, "pods have names");
    let taken = play.oldest..play.oldest + STIR / 2;
    play.crowd
        .label(BUSY, taken, &json!({ "named": "no" }))
        .await?;
    // What comes later is seen to: the rule that holds gives it an entry.
    let fresh = play.next..play.next + 1;
    play.next = fresh.end;
    let fresh = play.crowd.arrive(BUSY, fresh, &named()).await?;
    let entries = play.stage.entries();
    wait::until("an entry by the other rule", || async {
        let found = entries.of_pod(&fresh[0]).await?;
        Ok((!found.is_empty()).then_some(()))
    })
    .await?;
    let kept = before - STIR / 2;
    wait::until("the entries of those who left to go", || async {
        let now = named_entries(play).await?;
        ensure!(now >= kept, "{now} entries, {kept} were to stay");
        Ok((now == kept).then_some(()))
    })
    .await?;
    let change = template("spiffe://{{ .TrustDomain }}/pod/{{ .PodMeta.Name }}");
    play.stage.change("named", &change).await?;
    play.settles("a broken template, mended").await
}

async fn named_entries(play: &Play) -> Result<usize> {
    let all = play.stage.entries().all().await?;
    Ok(all
        .iter()
        .filter(|entry| path(entry).starts_with("/pod/"))
        .count())
}

/// `kill -9` in the middle of a pass; pods come and go while it is away.
async fn server_killed(play: &mut Play) -> Result<()> {
    play.change().await?;
    begun(play).await?;
    play.stage.domain.server()?.kill().await?;
    play.stir().await?;
    play.stage.domain.start_server().await?;
    play.stir().await?;
    play.settles("the server was killed").await
}

/// The API server goes in the middle of a pass; the leader stops, and nobody is without an entry meanwhile.
async fn api_server_killed(play: &mut Play) -> Result<()> {
    play.change().await?;
    begun(play).await?;
    let before = with_entry(play).await?;
    play.stage.cluster.stop_api_server()?;
    wait::until("the leader to stop", || async {
        Ok(play.leader()?.is_none().then_some(()))
    })
    .await?;
    let after = with_entry(play).await?;
    ensure!(
        before == after,
        "{} pods had an entry, {} have one without an API server",
        before.len(),
        after.len()
    );
    play.stage.cluster.start_api_server().await?;
    play.stir().await?;
    play.settles("the API server was killed").await
}

/// The UIDs of the pods that have an entry.
async fn with_entry(play: &Play) -> Result<BTreeSet<String>> {
    let all = play.stage.entries().all().await?;
    Ok(all
        .iter()
        .filter_map(Line::of)
        .map(|line| line.pod)
        .collect())
}

/// `kill -9` in the middle of a pass; the other controller ends it.
async fn leader_killed(play: &mut Play) -> Result<()> {
    play.change().await?;
    begun(play).await?;
    let leader = play.leader()?.context("somebody leads")?;
    play.controllers[leader].kill().await?;
    let killed = Instant::now();
    play.stir().await?;
    play.settles("the leader was killed").await?;
    testkit::aloud(format_args!(
        "leader killed → all is written: {:?}",
        killed.elapsed()
    ));
    let leads = play.leader()?;
    ensure!(leads == Some(1 - leader), "{leads:?} leads");
    Ok(())
}

/// Waits until the pass has begun: some entries are of the new version.
async fn begun(play: &Play) -> Result<()> {
    let entries = play.stage.entries();
    let prefix = format!("/v{}/", play.version);
    wait::until("a pass to begin", || async {
        let all = entries.all().await?;
        let begun = all.iter().any(|entry| path(entry).starts_with(&prefix));
        Ok(begun.then_some(()))
    })
    .await
}
