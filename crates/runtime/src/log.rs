//! The program's log: text or JSON, its level changeable at run time, its file reopened on SIGUSR2.

mod rfc3339;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use tokio::signal::unix::{SignalKind, signal};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::Tasks;

pub use rfc3339::rfc3339;

/// Our own crates; what the libraries below say is shown from `Warn` on, and all of it at `Trace`.
const OURS: [&str; 10] = [
    "agent", "ca", "cli", "identity", "k8s", "proto", "runtime", "server", "signet", "store",
];

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only what needs an operator.
    Error,
    /// And what may need one.
    Warn,
    /// And what the program does.
    #[default]
    Info,
    /// And how.
    Debug,
    /// And everything the libraries below say.
    Trace,
}

/// The shape of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What to log, how and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The level at start.
    pub level: Level,
    /// The shape of a line.
    pub format: Format,
    /// Where to; standard error when absent.
    pub file: Option<PathBuf>,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log file cannot be opened.
    #[error("cannot open the log file {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process already has a log.
    #[error("the log is already set up")]
    Twice,
}

/// Sets up the process's log. Once per process.
pub fn init(options: Options) -> Result<Log, LogError> {
    let output = match &options.file {
        Some(path) => Output::File(RwLock::new(open(path)?)),
        None => Output::Stderr,
    };
    let output = Arc::new(output);
    let (filter, handle) = reload::Layer::new(targets(options.level));
    Registry::default()
        .with(lines(options.format, Writer(output.clone())).with_filter(filter))
        .try_init()
        .map_err(|_| LogError::Twice)?;
    Ok(Log(Arc::new(State {
        level: Mutex::new(options.level),
        launch_level: options.level,
        apply: Some(Box::new(move |level| {
            // Fails only when the subscriber is gone, and that lives as long as the process.
            let _ = handle.reload(targets(level));
        })),
        file: options.file.map(|path| (path, output)),
    })))
}

/// The process's log as set up by [`init`].
#[derive(Clone)]
pub struct Log(Arc<State>);

struct State {
    level: Mutex<Level>,
    launch_level: Level,
    apply: Option<Box<dyn Fn(Level) + Send + Sync>>,
    file: Option<(PathBuf, Arc<Output>)>,
}

impl Log {
    /// A handle that remembers its level and changes nothing, for tests and for programs that did not call [`init`].
    pub fn detached(level: Level) -> Self {
        Self(Arc::new(State {
            level: Mutex::new(level),
            launch_level: level,
            apply: None,
            file: None,
        }))
    }

    /// The level now.
    pub fn level(&self) -> Level {
        *self.0.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The level at start.
    pub fn launch_level(&self) -> Level {
        self.0.launch_level
    }

    /// Changes the level.
    pub fn set_level(&self, level: Level) {
        let mut current = self.0.level.lock().unwrap_or_else(PoisonError::into_inner);
        *current = level;
        if let Some(apply) = &self.0.apply {
            apply(level);
        }
    }

    /// Closes the log file and opens it again by its name, for log rotation. The old one stays in use when that fails.
    pub fn reopen(&self) -> Result<(), LogError> {
        if let Some((path, output)) = &self.0.file
            && let Output::File(file) = &**output
        {
            let opened = open(path)?;
            *file.write().unwrap_or_else(PoisonError::into_inner) = opened;
        }
        Ok(())
    }

    /// Reopens the log file at each SIGUSR2.
    pub fn reopen_on_signal(&self, tasks: &Tasks) {
        let log = self.clone();
        let shutdown = tasks.shutdown();
        tasks.spawn("log reopening", async move {
            let mut usr2 = signal(SignalKind::user_defined2())?;
            loop {
                tokio::select! {
                    _ = usr2.recv() => {}
                    () = shutdown.cancelled() => return Ok(()),
                }
                match log.reopen() {
                    Ok(()) => tracing::info!("log file reopened"),
                    Err(error) => tracing::error!(%error, "the old log file stays in use"),
                }
            }
        });
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({:?})", self.level())
    }
}

/// A text that is not a [`Level`].
#[derive(Debug, thiserror::Error)]
#[error("give one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"")]
pub struct NotALevel;

impl FromStr for Level {
    type Err = NotALevel;

    /// In any case; `warning` is `warn`, and logrus' `fatal` and `panic` are `error`.
    fn from_str(text: &str) -> Result<Self, NotALevel> {
        match text.to_ascii_lowercase().as_str() {
            "error" | "fatal" | "panic" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(NotALevel),
        }
    }
}

/// A text that is not a [`Format`].
#[derive(Debug, thiserror::Error)]
#[error("give one of \"text\", \"json\"")]
pub struct NotAFormat;

impl FromStr for Format {
    type Err = NotAFormat;

    fn from_str(text: &str) -> Result<Self, NotAFormat> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(NotAFormat),
        }
    }
}

/// Names one request in all log lines about it; no two are equal, across processes too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    process: u64,
    count: u64,
}

impl RequestId {
    /// A new one.
    pub fn next() -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(1);
        Self {
            process: *PROCESS.get_or_init(|| RandomState::new().hash_one(std::process::id())),
            count: COUNT.fetch_add(1, Relaxed),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.process, self.count)
    }
}

fn lines<S>(format: Format, writer: Writer) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false);
    match format {
        Format::Text => lines.boxed(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    }
}

fn targets(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let below = match level {
        LevelFilter::INFO | LevelFilter::DEBUG => LevelFilter::WARN,
        same => same,
    };
    Targets::new()
        .with_targets(OURS.map(|target| (target, level)))
        .with_default(below)
}

fn open(path: &Path) -> Result<File, LogError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
        .map_err(|source| LogError::File {
            path: path.to_owned(),
            source,
        })
}

enum Output {
    Stderr,
    File(RwLock<File>),
}

#[derive(Clone)]
struct Writer(Arc<Output>);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = &'a Output;

    fn make_writer(&'a self) -> &'a Output {
        &self.0
    }
}

impl Write for &Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Output::Stderr => io::stderr().write(line),
            Output::File(file) => {
                let file = file.read().unwrap_or_else(PoisonError::into_inner);
                (&*file).write(line)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_format_and_file_of_a_whole_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.log");
        let options = Options {
            level: Level::Warn,
            format: Format::Json,
            file: Some(path.clone()),
        };
        let log = init(options.clone()).unwrap();
        assert!(matches!(init(options), Err(LogError::Twice)));

        tracing::info!("too quiet");
        log.set_level(Level::Debug);
        let span = tracing::info_span!("rpc", request_id = %RequestId::next());
        span.in_scope(|| tracing::debug!(entry_id = "e1", "line\nbreak \u{1b}[31m"));
        let rotated = folder.path().join("agent.log.1");
        std::fs::rename(&path, &rotated).unwrap();
        log.reopen().unwrap();
        tracing::warn!(target: "h2", "from below");
        tracing::info!(target: "h2", "too quiet from below");

        let old = std::fs::read_to_string(&rotated).unwrap();
        let line: serde_json::Value = serde_json::from_str(&old).unwrap();
        assert_eq!(line["entry_id"], "e1");
        assert_eq!(line["level"], "DEBUG");
        assert!(line["span"]["request_id"].is_string(), "{line}");
        assert_eq!(old.lines().count(), 1);
        assert!(!old.contains('\u{1b}'), "{old}");
        let new = std::fs::read_to_string(&path).unwrap();
        assert!(
            new.contains("from below") && !new.contains("too quiet"),
            "{new}"
        );
        assert_eq!(
            (log.level(), log.launch_level()),
            (Level::Debug, Level::Warn)
        );
    }

    #[test]
    fn levels_as_spire_names_them() {
        for (text, level) in [
            ("ERROR", Level::Error),
            ("warning", Level::Warn),
            ("Debug", Level::Debug),
        ] {
            assert_eq!(text.parse::<Level>().unwrap(), level);
        }
        let error = "loud".parse::<Level>().unwrap_err().to_string();
        assert!(error.contains("\"debug\""), "{error}");
        assert!("xml".parse::<Format>().is_err());
    }

    #[test]
    fn request_ids_differ() {
        assert_ne!(RequestId::next(), RequestId::next());
    }
}
