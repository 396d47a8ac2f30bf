//! Config files: HCL, or JSON when the text starts with `{`; every mistake of a file is reported in one run.
//!
//! ```
//! use std::time::Duration;
//! # fn main() -> Result<(), runtime::config::Problems> {
//! let text = r#"
//!     agent {
//!         server_address = "127.0.0.1"
//!     }
//!     plugins {
//!         KeyManager "disk" {
//!             plugin_data {
//!                 directory = "/var/lib/agent"
//!             }
//!         }
//!     }
//! "#;
//! let (address, port, sync) = runtime::config::read(text, None, |root| {
//!     let mut agent = root.required_section("agent");
//!     let address = agent.required::<String>("server_address");
//!     let port = agent.get("server_port").unwrap_or(8081_u16);
//!     let sync = agent.get("sync_interval").unwrap_or(Duration::from_secs(5));
//!
//!     let mut plugins = root.section("plugins");
//!     for (name, mut plugin) in plugins.labelled("KeyManager") {
//!         let mut data = plugin.section("plugin_data");
//!         match name.as_str() {
//!             "disk" => drop(data.required::<String>("directory")),
//!             "memory" => {}
//!             _ => plugin.problem("", "unknown key manager; there are \"disk\" and \"memory\""),
//!         }
//!     }
//!     Some((address?, port, sync))
//! })?;
//! assert_eq!((address.as_str(), port, sync.as_secs()), ("127.0.0.1", 8081, 5));
//! # Ok(())
//! # }
//! ```

mod environment;
mod section;
mod syntax;
mod telemetry;
mod value;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

pub use section::Section;
pub use telemetry::{HealthListener, Telemetry};
pub use value::{Value, parse_duration};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `agent.server_port`; empty for the text as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Every mistake of a file, in the order of reading; a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// One mistake of the text as a whole.
    fn whole(message: String) -> Self {
        let path = String::new();
        Self(vec![Problem { path, message }])
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
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
    let found = Found::default();
    let expanded = environment.map(|environment| environment::expand(text, environment, &found));
    let text = expanded.as_deref().unwrap_or(text);
    let root = syntax::parse(text).map_err(|message| {
        let mut problems = found.take();
        problems.extend(Problems::whole(message).0);
        Problems(problems)
    })?;
    let mut root = Section::root(root, found.clone());
    let built = build(&mut root);
    drop(root);
    match (found.take(), built) {
        (problems, Some(built)) if problems.is_empty() => Ok(built),
        (problems, None) if problems.is_empty() => Err(Problems::whole("not usable".to_owned())),
        (problems, _) => Err(Problems(problems)),
    }
}

/// Notes that a key is accepted and has no effect.
pub fn warn(section: &mut Section, key: &str, why: &str, warnings: &mut Vec<String>) {
    if section.has(key) {
        section.ignore(key);
        warnings.push(format!("{}.{key} has no effect: {why}", section.path()));
    }
}

/// Refuses a key that SPIRE knows and we do not.
pub fn refuse(section: &mut Section, key: &str, instead: &str) {
    if section.has(key) {
        section.ignore(key);
        section.problem(key, format_args!("not supported yet; {instead}"));
    }
}

/// `text` with the values of `environment` for `$NAME` and `${NAME}`.
///
/// # Errors
/// Every name without a value.
pub fn expand(text: &str, environment: &BTreeMap<String, String>) -> Result<String, Problems> {
    let found = Found::default();
    let expanded = environment::expand(text, environment, &found);
    match found.take() {
        problems if problems.is_empty() => Ok(expanded),
        problems => Err(Problems(problems)),
    }
}

/// Where problems are gathered.
#[derive(Clone, Debug, Default)]
struct Found(Rc<RefCell<Vec<Problem>>>);

impl Found {
    fn add(&self, path: String, message: String) {
        self.0.borrow_mut().push(Problem { path, message });
    }

    fn take(&self) -> Vec<Problem> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests;
