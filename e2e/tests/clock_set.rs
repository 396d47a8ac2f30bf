//! E7: the clock of server and agent is set back by an hour while they run, and forward again.
#![expect(
    clippy::disallowed_methods,
    reason = "the test knows the true time, which its programs do not"
)]

use std::env;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::bench::h2::Connection;
use e2e::{Domain, Settings, binaries, wait};
use identity::Certificate;
use prost::Message as _;
use proto::workload::X509svidResponse;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const X509: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const HOUR: i64 = 3600;
const SVID_TTL: Duration = Duration::from_secs(20);

/// How late a look at the time may come after the time.
const LEEWAY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_clock_set_back_and_forward_again() -> Result<()> {
    let clock = FakeClock::new().await?;
    let mut domain = Domain::start(Settings {
        x509_svid_ttl: SVID_TTL,
        server_extra: "agent_ttl = \"12h\"".to_owned(),
        environment: clock.environment()?,
        ..Settings::default()
    })
    .await?;
    domain.register("/web", &env::current_exe()?).await?;
    let socket = domain.agent_socket();
    let first = wait::until("a first SVID", || served(&socket)).await?;
    let witness = Witness::start(socket.clone(), clock.clone());

    clock.set(-HOUR)?;
    logged(&mut domain, "the clock was set back").await?;
    wait::until("the SVID of before to run out", || async {
        Ok((SystemTime::now() > first.not_after() + 2 * LEEWAY).then_some(()))
    })
    .await?;
    running(&mut domain)?;

    clock.set(0)?;
    let mut serials = vec![first.serial_decimal()];
    while serials.len() < 4 {
        let next = wait::until("another SVID", || async {
            let next = served(&socket).await?.filter(|next| {
                let now = SystemTime::now();
                next.not_before() <= now && now < next.not_after()
            });
            Ok(next.filter(|next| !serials.contains(&next.serial_decimal())))
        })
        .await?;
        serials.push(next.serial_decimal());
    }
    witness.end()?;
    domain.healthy("server").await?;
    domain.healthy("agent").await?;
    running(&mut domain)
}

/// Waits until the agent has said so.
async fn logged(domain: &mut Domain, text: &str) -> Result<()> {
    let agent = domain.agent()?;
    wait::until(&format!("the agent to log {text:?}"), || async {
        Ok(agent.log()?.contains(text).then_some(()))
    })
    .await
}

fn running(domain: &mut Domain) -> Result<()> {
    domain.server()?.check_running()?;
    domain.agent()?.check_running()?;
    for log in [domain.server()?.log()?, domain.agent()?.log()?] {
        ensure!(!log.contains("panicked"), "{log}");
    }
    Ok(())
}

/// The certificate of the only SVID the agent serves now; an error or `None` when it serves none.
async fn served(socket: &Path) -> Result<Option<Certificate>> {
    let mut stream = Connection::open(socket).await?.stream(X509).await?;
    let message = tokio::time::timeout(LEEWAY, stream.message()).await??;
    let Some(svid) = X509svidResponse::decode(message)?.svids.into_iter().next() else {
        return Ok(None);
    };
    let chain = Certificate::chain_from_der(&svid.x509_svid)?;
    Ok(chain.into_iter().next())
}

/// The clock of the programs that its library is preloaded into.
#[derive(Clone)]
struct FakeClock {
    folder: Arc<TempDir>,
    offset: Arc<Mutex<i64>>,
}

impl FakeClock {
    async fn new() -> Result<Self> {
        let clock = Self {
            folder: Arc::new(TempDir::new()?),
            offset: Arc::default(),
        };
        let built = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o",
            ])
            .arg(clock.library())
            .arg(binaries::repository("e2e/fixtures/clock.c"))
            .output()
            .await
            .context("run cc: a C compiler is needed, as for building Signet")?;
        ensure!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        clock.set(0)?;
        Ok(clock)
    }

    /// Moves the programs' clock so many seconds away from the true time.
    fn set(&self, offset: i64) -> Result<()> {
        // Never shorter than it is: the programs have it mapped.
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.file())?;
        file.write_all_at(&offset.to_ne_bytes(), 0)?;
        *self.offset.lock().unwrap_or_else(PoisonError::into_inner) = offset;
        Ok(())
    }

    fn now(&self) -> SystemTime {
        let offset = *self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        let by = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 {
            SystemTime::now() - by
        } else {
            SystemTime::now() + by
        }
    }

    fn environment(&self) -> Result<Vec<(String, String)>> {
        let text = |path: PathBuf| {
            path.into_os_string()
                .into_string()
                .ok()
                .context("a path in UTF-8")
        };
        Ok(vec![
            ("LD_PRELOAD".to_owned(), text(self.library())?),
            ("CLOCK_OFFSET_FILE".to_owned(), text(self.file())?),
        ])
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

/// Asks for the SVID again and again, and remembers the first that was served when it was not valid.
struct Witness {
    task: JoinHandle<()>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    looks: usize,
    wrong: Option<String>,
}

impl Witness {
    fn start(socket: PathBuf, clock: FakeClock) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let notes = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                if let Ok(Some(svid)) = served(&socket).await {
                    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                    notes.looks += 1;
                    if let Err(wrong) = in_time(&svid, &clock) {
                        notes.wrong.get_or_insert_with(|| format!("{wrong:#}"));
                    }
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        Self { task, seen }
    }

    fn end(self) -> Result<()> {
        self.task.abort();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.looks > 10, "only {} looks", seen.looks);
        match &seen.wrong {
            Some(wrong) => bail!("{wrong}"),
            None => Ok(()),
        }
    }
}

/// An SVID may be served until it ends by the clock it was issued by: setting the clock back makes it live no longer.
fn in_time(svid: &Certificate, clock: &FakeClock) -> Result<()> {
    let (told, is) = (clock.now(), SystemTime::now());
    let issued_before = svid.not_before() > told + LEEWAY;
    let now = if issued_before { is } else { told };
    ensure!(
        now < svid.not_after() + LEEWAY,
        "served at {now:?} (the programs' clock: {told:?}), valid from {:?} until {:?}",
        svid.not_before(),
        svid.not_after()
    );
    Ok(())
}
