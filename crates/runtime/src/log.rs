//! The program's log: text or JSON, its level changeable at run time, its file reopened on SIGUSR2.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Tasks;

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
#[derive(Clone, Debug, Default)]
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
        source: std::io::Error,
    },
    /// The process already has a log.
    #[error("the log is already set up")]
    Twice,
}

/// Sets up the process's log. Once per process.
pub fn init(options: Options) -> Result<Log, LogError> {
    todo!()
}

/// The process's log as set up by [`init`].
#[derive(Clone, Debug)]
pub struct Log {}

impl Log {
    /// A handle that changes nothing, for tests and for programs that did not call [`init`].
    pub fn detached(level: Level) -> Self {
        todo!()
    }

    /// The level now.
    pub fn level(&self) -> Level {
        todo!()
    }

    /// The level at start.
    pub fn launch_level(&self) -> Level {
        todo!()
    }

    /// Changes the level.
    pub fn set_level(&self, level: Level) {
        todo!()
    }

    /// Closes the log file and opens it again by its name, for log rotation.
    pub fn reopen(&self) -> Result<(), LogError> {
        todo!()
    }

    /// Reopens the log file at each SIGUSR2.
    pub fn reopen_on_signal(&self, tasks: &Tasks) {
        todo!()
    }
}

/// A text that is not a [`Level`].
#[derive(Debug, thiserror::Error)]
#[error("one of debug, error, info, trace, warn")]
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

/// Names one request in all log lines about it; unique across processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    process: u64,
    count: u64,
}

impl RequestId {
    /// The next one.
    #[expect(clippy::new_without_default, reason = "no two are equal")]
    pub fn new() -> Self {
        todo!()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.process, self.count)
    }
}
