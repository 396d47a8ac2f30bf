//! The process's environment: read here and passed down.

use std::collections::BTreeMap;

/// Every variable whose name and value are text.
pub(crate) fn all() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// One variable.
#[expect(clippy::disallowed_methods, reason = "this is where it is read")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
