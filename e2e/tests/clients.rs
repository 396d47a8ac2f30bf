//! E6: stock clients, unmodified, against the built binary: fetch, watch, validate, and mTLS between languages.
#![expect(
    clippy::disallowed_methods,
    reason = "real processes live on the real clock"
)]

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::{Domain, Settings, Stock, binaries, wait};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

/// All clients, each registered as `/<language>`.
async fn clients(domain: &Domain) -> Result<Vec<Stock>> {
    let clients = vec![
        Stock::rust(env!("CARGO_BIN_EXE_stock"))?,
        Stock::python()?,
        Stock::go(domain.folder()).await?,
    ];
    for client in &clients {
        let path = format!("/{}", client.language);
        domain.register(&path, &client.program).await?;
    }
    let socket = domain.agent_socket();
    for client in &clients {
        let what = format!("the agent knows the entry of {}", client.language);
        wait::until(&what, || async {
            Ok(Some(client.run(&socket, &["x509"]).await?))
        })
        .await?;
    }
    Ok(clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_clients_of_three_languages_fetch_and_trust_each_other() -> Result<()> {
    let domain = Domain::start(Settings::default()).await?;
    let clients = clients(&domain).await?;
    fetch(&domain, &clients).await?;
    tokens(&domain, &clients).await?;
    mutual_tls(&domain, &clients).await?;
    strangers(&domain).await?;
    headers(&domain).await
}

async fn fetch(domain: &Domain, clients: &[Stock]) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for client in clients {
        let seen = client.run(&domain.agent_socket(), &["x509"]).await?;
        let seen: Value = serde_json::from_str(&seen)?;
        let language = client.language;
        ensure!(
            seen["id"] == domain.id(&format!("/{language}")),
            "{language}: {seen}"
        );
        ensure!(
            seen["authorities"] == json!({"example.org": 1}),
            "{language}: {seen}"
        );
        ensure!(seen["not_after"].as_u64() > Some(now), "{language}: {seen}");
    }
    Ok(())
}

/// Each client's token is valid for each client, for its audience alone.
async fn tokens(domain: &Domain, clients: &[Stock]) -> Result<()> {
    let socket = domain.agent_socket();
    for subject in clients {
        let token = subject.run(&socket, &["jwt", "shop"]).await?;
        let id = domain.id(&format!("/{}", subject.language));
        for verifier in clients {
            let who = format!("{} by {}", subject.language, verifier.language);
            let found = verifier.run(&socket, &["validate", "shop", &token]).await?;
            ensure!(found == id, "{who}: {found}");
            let wrong = verifier
                .output(&socket, &["validate", "bank", &token])
                .await?;
            ensure!(!wrong.status.success(), "{who}: valid for another audience");
        }
    }
    Ok(())
}

/// Each client calls each, and refuses a server that is somebody else.
async fn mutual_tls(domain: &Domain, clients: &[Stock]) -> Result<()> {
    let socket = domain.agent_socket();
    for server in clients {
        let mut running = server.spawn(&socket, &["serve"])?;
        let port = first_line(&mut running).await.context(server.language)?;
        let id = domain.id(&format!("/{}", server.language));
        for client in clients {
            let who = format!("{} calls {}", client.language, server.language);
            let answer = client
                .run(&socket, &["get", &port, &id])
                .await
                .context(who.clone())?;
            let hello = format!("hello {}", domain.id(&format!("/{}", client.language)));
            ensure!(answer == hello, "{who}: {answer}");
            let another = domain.id("/another");
            let refused = client.output(&socket, &["get", &port, &another]).await?;
            ensure!(
                !refused.status.success(),
                "{who}, and takes it for {another}"
            );
        }
        running.kill().await?;
    }
    Ok(())
}

/// A program that is registered for nothing hears so, in the words that clients look for.
async fn strangers(domain: &Domain) -> Result<()> {
    let path = domain.path("stranger");
    let program = binaries::alias(env!("CARGO_BIN_EXE_stock").as_ref(), &path)?;
    let program = program.to_str().context("a path in UTF-8")?;
    let stranger = Stock::rust(program)?;
    let output = stranger.output(&domain.agent_socket(), &["x509"]).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && error.contains("no identity issued"),
        "{error}"
    );
    Ok(())
}

/// Plain grpcio, with and without the security header.
async fn headers(domain: &Domain) -> Result<()> {
    let heard = Stock::python()?
        .run(&domain.agent_socket(), &["header"])
        .await?;
    let missing = "INVALID_ARGUMENT security header missing from request";
    let fine = format!("OK {}", domain.id("/python"));
    ensure!(
        heard.lines().collect::<Vec<_>>() == [missing, missing, missing, &fine],
        "{heard}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_clients_of_three_languages_follow_rotations() -> Result<()> {
    const ROTATIONS: usize = 4;
    let domain = Domain::start(Settings {
        ca_ttl: Duration::from_secs(600),
        x509_svid_ttl: Duration::from_secs(10),
        ..Settings::default()
    })
    .await?;
    let clients = clients(&domain).await?;
    let socket = domain.agent_socket();
    let count = ROTATIONS.to_string();
    let watches = clients
        .iter()
        .map(|client| client.spawn(&socket, &["watch", &count]));
    let watches = watches.collect::<Result<Vec<Child>>>()?;
    for (client, watch) in clients.iter().zip(watches) {
        let output = tokio::time::timeout(2 * wait::PATIENCE, watch.wait_with_output());
        let output = output
            .await
            .with_context(|| format!("{} hangs", client.language))??;
        let serials = String::from_utf8(output.stdout)?;
        let distinct: BTreeSet<_> = serials.lines().collect();
        ensure!(
            output.status.success() && distinct.len() == ROTATIONS,
            "{}: {serials}",
            client.language
        );
    }
    Ok(())
}

async fn first_line(child: &mut Child) -> Result<String> {
    let output = child.stdout.take().context("its output")?;
    let mut lines = BufReader::new(output).lines();
    let line = tokio::time::timeout(wait::PATIENCE, lines.next_line()).await??;
    line.context("it ended at once")
}
