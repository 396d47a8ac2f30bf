//! Configuration files of the programs here: YAML, or JSON, which YAML takes too.

use std::collections::BTreeMap;

use runtime::config::{Problem, Problems, Section};
use serde_json::Value;

/// Reads `text` by `build`; `environment` as in [`runtime::config::read`]. `expected` says what the file should hold.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn read<T>(
    text: &str,
    environment: Option<&BTreeMap<String, String>>,
    expected: &str,
    build: impl FnOnce(&mut Section) -> Option<T>,
) -> Result<T, Problems> {
    let whole = |message: String| {
        let path = String::new();
        Problems(vec![Problem { path, message }])
    };
    let json: Value =
        serde_saphyr::from_str(text).map_err(|error| whole(format!("not valid YAML: {error}")))?;
    if !json.is_object() {
        return Err(whole(format!("give {expected}: `key: value` lines")));
    }
    runtime::config::read(&json.to_string(), environment, build)
}
