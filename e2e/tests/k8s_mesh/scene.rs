//! What these tests stand on, made once: a cluster, and Signet on it with the values that the guide recommends.

use std::sync::LazyLock;

use anyhow::{Context, Result, anyhow};
use e2e::cluster::Cluster;
use e2e::kubelet;
use e2e::release::{Release, shop};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// That of the guide's commands.
pub(crate) const TRUST_DOMAIN: &str = "corp.example";

/// Ends with the process, which takes everything of it along.
pub(crate) struct Scene {
    pub(crate) cluster: &'static Cluster,
    pub(crate) release: Release,
    shop: OnceCell<()>,
}

/// One for all tests: what they share lives longer than each of them.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().expect("threads can be started"));

static SCENE: OnceCell<std::result::Result<Scene, String>> = OnceCell::const_new();

/// Runs a test on the scene, where this user can have one.
pub(crate) fn on(test: impl AsyncFnOnce(&'static Scene) -> Result<()>) -> Result<()> {
    if let Some(why) = kubelet::unable() {
        testkit::skipped(why);
        return Ok(());
    }
    RUNTIME.block_on(async {
        let scene = SCENE
            .get_or_init(async || Scene::open().await.map_err(|error| format!("{error:#}")))
            .await;
        test(scene.as_ref().map_err(|error| anyhow!("{error}"))?).await
    })
}

impl Scene {
    async fn open() -> Result<Self> {
        let cluster = Cluster::shared().await?;
        let release = Release::prepare(cluster).await?;
        release.install_documented(cluster).await?;
        release.ready(cluster).await?;
        Ok(Self {
            cluster,
            release,
            shop: OnceCell::new(),
        })
    }

    /// A namespace that enforces *restricted*, a backend in it, and a frontend that may call it.
    pub(crate) async fn open_shop(&self) -> Result<()> {
        let open = async || {
            shop::open(self.cluster, "restricted").await?;
            for name in ["backend", "frontend"] {
                let annotations = shop::annotations(TRUST_DOMAIN, name);
                self.cluster.apply(&shop::app(name, &annotations)).await?;
            }
            shop::ready_pod(self.cluster, &self.release.node, "backend").await?;
            anyhow::Ok(())
        };
        self.shop.get_or_try_init(open).await.map(|&()| ())
    }

    /// What a container has said so far.
    pub(crate) fn log(&self, (namespace, pod): (&str, &str), container: &str) -> Result<String> {
        let name = format!("{namespace}_{pod}_{container}.log");
        let path = self.release.node.logs().join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}
