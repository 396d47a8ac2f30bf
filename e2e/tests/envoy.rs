//! E1 and E3: real Envoys configured from `envoy/`, with an agent and a server.
#![expect(
    clippy::disallowed_methods,
    reason = "real processes live on the real clock"
)]

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use e2e::app::App;
use e2e::mesh::{self, Programs};
use e2e::tls::{self, Credentials};
use e2e::{
    Bootstrap, Domain, Envoy, Mesh, Process, Sds, Settings, Validation, binaries, envoy, ports,
    wait,
};
use tempfile::TempDir;

/// Envoy's name for a figure of the secret `path`.
fn stat(domain: &Domain, path: &str, figure: &str) -> String {
    format!("sds.{}.{figure}", domain.id(path).replace("://", "_"))
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_takes_every_file() -> Result<()> {
    let folder = TempDir::new()?;
    for name in [
        "inbound.yaml",
        "outbound.yaml",
        "inbound-sotw-plain.yaml",
        "outbound-sotw-plain.yaml",
        "inbound-google-grpc.yaml",
    ] {
        envoy::validate(name, &Bootstrap::read(name)?, folder.path()).await?;
    }
    let dynamic = binaries::repository("envoy/dynamic");
    let bootstrap = Bootstrap::read("dynamic/bootstrap.yaml")?
        .replace("/etc/envoy/dynamic", &dynamic.to_string_lossy())?;
    envoy::validate("dynamic", &bootstrap, folder.path()).await
}

/// Everything in `envoy/` is used here or in [`e1_from_watched_files`].
#[tokio::test(flavor = "multi_thread")]
async fn e1_mutual_tls_in_all_forms() -> Result<()> {
    let domain = Domain::start(Settings::default()).await?;
    let programs = Programs::register(&domain).await?;
    let visitors = Visitors::new(&domain).await?;
    let (inbound, outbound) = (
        Bootstrap::read("inbound.yaml")?,
        Bootstrap::read("outbound.yaml")?,
    );
    for (name, sds, validation) in [
        ("delta-spiffe", Sds::Delta, Validation::Spiffe),
        ("delta-plain", Sds::Delta, Validation::PlainCa),
        ("sotw-spiffe", Sds::StateOfTheWorld, Validation::Spiffe),
    ] {
        let style = |bootstrap: &Bootstrap| bootstrap.clone().speaking(sds)?.validating(validation);
        let mesh = Mesh::start(
            &domain,
            &programs,
            name,
            style(&inbound)?,
            style(&outbound)?,
        )
        .await?;
        visitors.call(&mesh, name).await?;
    }
    let plain = ["inbound-sotw-plain.yaml", "outbound-sotw-plain.yaml"].map(Bootstrap::read);
    let [plain_inbound, plain_outbound] = plain;
    let mesh = Mesh::start(
        &domain,
        &programs,
        "sotw-plain",
        plain_inbound?,
        plain_outbound?,
    )
    .await?;
    visitors.call(&mesh, "sotw-plain").await?;
    let google = Bootstrap::read("inbound-google-grpc.yaml")?;
    let mesh = Mesh::start(&domain, &programs, "google-grpc", google, outbound).await?;
    visitors.call(&mesh, "google-grpc").await
}

/// Clients of the backend that are not the frontend's Envoy.
struct Visitors {
    allowed: Credentials,
    other: Credentials,
    foreign: Credentials,
}

impl Visitors {
    async fn new(domain: &Domain) -> Result<Self> {
        // Another CA that claims the same trust domain and the very ID that is allowed.
        let mut foreign = Domain::new(Settings::default())?;
        foreign.start_server().await?;
        Ok(Self {
            allowed: Credentials::mint(domain, "/frontend").await?,
            other: Credentials::mint(domain, "/other").await?,
            foreign: Credentials::mint(&foreign, "/frontend").await?,
        })
    }

    async fn call(&self, mesh: &Mesh, form: &str) -> Result<()> {
        let answer = tls::get(mesh.inbound, Some(&self.allowed)).await?;
        ensure!(answer.body.trim() == mesh.expected(), "{form}: {answer:?}");
        for (who, shown) in [
            ("nobody", None),
            ("a foreign CA's", Some(&self.foreign)),
            ("another service", Some(&self.other)),
        ] {
            let answer = tls::get(mesh.inbound, shown).await;
            ensure!(answer.is_err(), "{form}: {who} got {answer:?}");
        }
        // And not because it does not answer any more.
        mesh.passes().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_from_watched_files() -> Result<()> {
    let domain = Domain::start(Settings::default()).await?;
    let programs = Programs::register(&domain).await?;
    let allowed = Credentials::mint(&domain, "/frontend").await?;
    let app = App::start().await?;
    let (mtls, admin) = (ports::free()?, ports::free()?);
    let listeners = Bootstrap::read("dynamic/listeners.yaml")?
        .replace("port_value: 8443", &format!("port_value: {mtls}"))?;
    domain.write("listeners.yaml", listeners.as_str())?;
    let clusters = Bootstrap::read("dynamic/clusters.yaml")?
        .replace("port_value: 8081", &format!("port_value: {}", app.port))?;
    domain.write("clusters.yaml", clusters.as_str())?;
    let bootstrap = Bootstrap::read("dynamic/bootstrap.yaml")?
        .replace("/etc/envoy/dynamic", &domain.folder().to_string_lossy())?;
    let bootstrap = mesh::at_home(&domain, bootstrap, admin)?;
    let mut envoy = Envoy::start(
        "dynamic",
        &programs.backend,
        &bootstrap,
        admin,
        domain.folder(),
    )?;
    envoy.ready().await?;
    let address = ports::local(mtls);
    wait::until("the listener of the file to answer", || async {
        let answer = tls::get(address, Some(&allowed)).await?;
        Ok((answer.status == 200).then_some(()))
    })
    .await?;
    ensure!(
        tls::get(address, None).await.is_err(),
        "nobody got an answer"
    );
    Ok(())
}

/// The configuration of the guide "How to Configure SPIFFE/SPIRE for Service Identity", to the letter but for ports and
/// the socket's path. It gives no node ID, which Envoy wants for SDS: the command line does.
#[tokio::test(flavor = "multi_thread")]
async fn e1_the_guides_configuration_as_it_stands() -> Result<()> {
    let domain = Domain::start(Settings::default()).await?;
    let program = mesh::program(&domain, "api-server")?;
    domain
        .register("/ns/production/sa/api-server", &program)
        .await?;
    let (app, port) = (App::start().await?, ports::free()?);
    let guide = binaries::repository("e2e/fixtures/guide-service-identity.yaml");
    let guide = Bootstrap::text(&std::fs::read_to_string(guide)?)
        .replace("port_value: 8443", &format!("port_value: {port}"))?
        .replace("port_value: 8080", &format!("port_value: {}", app.port))?
        .replace(
            "/run/spire/sockets/agent.sock",
            &domain.agent_socket().to_string_lossy(),
        )?;
    let config = domain.write("guide.yaml", guide.as_str())?;
    let config = config.to_string_lossy();
    let args = [
        "-c",
        &config,
        "--service-node",
        "api-1",
        "--service-cluster",
        "api",
        "--disable-hot-restart",
        "--concurrency",
        "1",
    ];
    let mut envoy = Process::start("guide", &program, args, &domain.path("guide.log"))?;
    let client = Credentials::mint(&domain, "/client").await?;
    let address = ports::local(port);
    wait::until("the guide's Envoy to answer", || {
        let alive = envoy.check_running();
        let client = &client;
        async move {
            alive?;
            let answer = tls::get(address, Some(client)).await?;
            Ok((answer.status == 200).then_some(()))
        }
    })
    .await?;
    ensure!(
        tls::get(address, None).await.is_err(),
        "nobody got an answer"
    );
    let chain = tls::chain(address).await?;
    let id = chain.first().and_then(|leaf| leaf.spiffe_id());
    ensure!(
        id.map(ToString::to_string) == Some(domain.id("/ns/production/sa/api-server")),
        "{id:?}"
    );
    Ok(())
}

/// One Envoy in front of nothing, that asks for `/backend`.
struct Lonely {
    envoy: Envoy,
    port: u16,
}

impl Lonely {
    fn start(domain: &Domain, name: &str, program: &Path, sds: Sds) -> Result<Self> {
        let (port, admin) = (ports::free()?, ports::free()?);
        let bootstrap = Bootstrap::read("inbound.yaml")?
            .speaking(sds)?
            .replace("port_value: 8443", &format!("port_value: {port}"))?;
        let bootstrap = mesh::at_home(domain, bootstrap, admin)?;
        Ok(Self {
            envoy: Envoy::start(name, program, &bootstrap, admin, domain.folder())?,
            port,
        })
    }

    /// Fails when the stream of the certificate has ever broken.
    async fn unbroken(&self, domain: &Domain) -> Result<()> {
        let stat = async |figure| self.envoy.stat(&stat(domain, "/backend", figure)).await;
        ensure!(stat("update_success").await? > 0, "there is no stream");
        ensure!(stat("update_failure").await? == 0, "the stream has ended");
        Ok(())
    }

    async fn served(&self, domain: &Domain) -> Result<()> {
        wait::until("Envoy to be served", || async {
            let chain = tls::chain(ports::local(self.port)).await?;
            let id = chain.first().and_then(|leaf| leaf.spiffe_id());
            ensure!(
                id.map(ToString::to_string) == Some(domain.id("/backend")),
                "it is {id:?}"
            );
            Ok(Some(()))
        })
        .await
    }
}

/// Waits for a line of the agent's log that holds all of `parts`, beyond the first `skip` bytes.
async fn logged(domain: &mut Domain, skip: usize, parts: &[&str]) -> Result<String> {
    let log = domain.agent()?.log_path().to_owned();
    let what = format!("the agent to log {parts:?} in {}", log.display());
    wait::until(&what, || async {
        let text = std::fs::read_to_string(&log)?;
        let text = text.get(skip..).unwrap_or_default();
        let found = text
            .lines()
            .find(|line| parts.iter().all(|part| line.contains(part)));
        Ok(found.map(str::to_owned))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_held_until_registered_and_nothing_new_once_deleted() -> Result<()> {
    let settings = Settings {
        x509_svid_ttl: Duration::from_secs(10),
        ..Settings::default()
    };
    let mut domain = Domain::start(settings).await?;
    let programs = [
        mesh::program(&domain, "sotw")?,
        mesh::program(&domain, "delta")?,
    ];
    for (program, sds) in programs.iter().zip([Sds::StateOfTheWorld, Sds::Delta]) {
        let name = format!("{sds:?}");
        let skip = domain.agent()?.log()?.len();
        let lonely = Lonely::start(&domain, &name, program, sds)?;
        let path = program.to_string_lossy().into_owned();
        let id = domain.id("/backend");
        let why = [
            "the secret is not served",
            &id,
            &path,
            "no registration entry",
        ];
        logged(&mut domain, skip, &why).await?;
        let entry = domain.register("/backend", program).await?;
        lonely.served(&domain).await?;
        // On the stream that was held all the time, not on a new one.
        lonely.unbroken(&domain).await.context(name.clone())?;

        let skip = domain.agent()?.log()?.len();
        domain
            .server_cli(&["entry", "delete", "-entryID", &entry])
            .await?;
        logged(&mut domain, skip, &why).await?;
        let last = lonely.envoy.serials().await?;
        let leaf = tls::chain(ports::local(lonely.port)).await?.remove(0);
        wait::until("the last certificate to run out", || async {
            Ok((SystemTime::now() > leaf.not_after()).then_some(()))
        })
        .await?;
        ensure!(
            lonely.envoy.serials().await? == last,
            "{name}: a new certificate after the end"
        );
        lonely.unbroken(&domain).await.context(name)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_anothers_identity_asked_by_name() -> Result<()> {
    let mut domain = Domain::start(Settings::default()).await?;
    let programs = Programs::register(&domain).await?;
    let stranger = mesh::program(&domain, "stranger")?;
    domain.register("/stranger", &stranger).await?;
    // Who may have it gets it, so the agent knows all three entries.
    Lonely::start(&domain, "backend", &programs.backend, Sds::Delta)?
        .served(&domain)
        .await?;
    for sds in [Sds::Delta, Sds::StateOfTheWorld] {
        let skip = domain.agent()?.log()?.len();
        let thief = Lonely::start(&domain, &format!("thief-{sds:?}"), &stranger, sds)?;
        let (id, path) = (
            domain.id("/backend"),
            stranger.to_string_lossy().into_owned(),
        );
        let line = logged(&mut domain, skip, &["the secret is not served", &id, &path]).await?;
        ensure!(
            line.contains("to a workload with these selectors"),
            "{line}"
        );
        // The bundle it may have: so the agent has answered all it will.
        let bundle = stat(&domain, "", "update_success");
        wait::until("Envoy to have the bundle", || async {
            Ok((thief.envoy.stat(&bundle).await? > 0).then_some(()))
        })
        .await?;
        ensure!(
            thief.envoy.serials().await?.is_empty(),
            "it got a certificate"
        );
        ensure!(
            tls::chain(ports::local(thief.port)).await.is_err(),
            "it serves"
        );
    }
    let log = domain.agent()?.log()?;
    ensure!(!log.contains("PRIVATE KEY"), "a key in the log");
    Ok(())
}

/// What a workload is may show late: here its program gets the path of the entry while its stream is held.
#[tokio::test(flavor = "multi_thread")]
async fn s_5_05_a_held_stream_looks_at_its_workload_again() -> Result<()> {
    let mut domain = Domain::start(Settings::default()).await?;
    for sds in [Sds::Delta, Sds::StateOfTheWorld] {
        let early = mesh::program(&domain, &format!("early-{sds:?}"))?;
        let late = early.with_file_name(format!("late-{sds:?}"));
        let entry = domain.register("/backend", &late).await?;
        let skip = domain.agent()?.log()?.len();
        let lonely = Lonely::start(&domain, &format!("{sds:?}"), &early, sds)?;
        let id = domain.id("/backend");
        logged(&mut domain, skip, &["the secret is not served", &id]).await?;
        std::fs::rename(&early, &late)?;
        lonely.served(&domain).await?;
        lonely.unbroken(&domain).await?;
        domain
            .server_cli(&["entry", "delete", "-entryID", &entry])
            .await?;
    }
    Ok(())
}
