//! Config files: HCL, or JSON when the text starts with `{`; every mistake of a file is reported in one run.
//!
//! ```
//! use std::time::Duration;
//! # fn main() -> Result<(), runtime::config::Problems> {
//! let text = r#"agent { server_address = "127.0.0.1"  }"#;
//! let (address, port, sync) = runtime::config::read(text, None, |root| {
//!     let mut agent = root.required_section("agent");
//!     let address = agent.required::<String>("server_address");
//!     let port = agent.get("server_port").unwrap_or(8081_u16);
//!     let sync = agent.get("sync_interval").unwrap_or(Duration::from_secs(5));
//!     Some((address?, port, sync))
//! })?;
//! assert_eq!((address.as_str(), port, sync.as_secs()), ("127.0.0.1", 8081, 5));
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `agent.server_port`; empty for the text as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Every mistake of a file, in the order of reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// Reads `text` and lets `build` take from it what it knows.
///
/// With `environment`, `$NAME` and `${NAME}` stand for its values (`-expandEnv`). `build` returns `None` only after it met a
/// problem. A key that nobody asked for is a problem too.
pub fn read<T>(
    text: &str,
    environment: Option<&BTreeMap<String, String>>,
    build: impl FnOnce(&mut Section) -> Option<T>,
) -> Result<T, Problems> {
    todo!()
}

/// One block of a file. Dropped, it reports the keys that nobody asked for.
#[derive(Debug)]
pub struct Section {}

impl Section {
    /// Where it stands: `agent`, `plugins.KeyManager.disk`.
    pub fn path(&self) -> &str {
        todo!()
    }

    /// Whether the file has this block at all, with anything in it or not.
    pub fn is_present(&self) -> bool {
        todo!()
    }

    /// Whether `key` is there; asks for it.
    pub fn has(&mut self, key: &str) -> bool {
        todo!()
    }

    /// The value of `key`, if it is there and right.
    pub fn get<V: Value>(&mut self, key: &str) -> Option<V> {
        todo!()
    }

    /// The value of `key`; a problem when it is missing.
    pub fn required<V: Value>(&mut self, key: &str) -> Option<V> {
        todo!()
    }

    /// The text of `key`, made a `T` by `parse`, whose error says what would be right.
    pub fn parse<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        todo!()
    }

    /// Like [`Section::parse`]; a problem when the key is missing.
    pub fn required_parse<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        todo!()
    }

    /// One of the named choices.
    pub fn choice<T: Clone>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        todo!()
    }

    /// The block `key`; an absent one is empty, see [`Section::is_present`].
    pub fn section(&mut self, key: &str) -> Section {
        todo!()
    }

    /// The block `key`; a problem when it is missing.
    pub fn required_section(&mut self, key: &str) -> Section {
        todo!()
    }

    /// Labelled blocks, in the order of the file: `KeyManager "disk" { … }` under the key `KeyManager` gives `("disk", section)`.
    pub fn labelled(&mut self, key: &str) -> Vec<(String, Section)> {
        todo!()
    }

    /// Takes `key` as known and does not look at it.
    pub fn ignore(&mut self, key: &str) {
        todo!()
    }

    /// Reports a mistake at `key` that only the reader could see.
    pub fn problem(&mut self, key: &str, message: impl fmt::Display) {
        todo!()
    }
}

/// What a key can hold. Numbers and booleans may be written as text, as SPIRE's own files do.
pub trait Value: Sized {
    /// What would be right, after "give": `a duration such as "30s" or "1h30m"`.
    const EXPECTED: &'static str;

    /// Reads a value of the file.
    fn read(value: &serde_json::Value) -> Option<Self>;
}
