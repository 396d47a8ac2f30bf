use serde_json::{Map, Value as Json};

/// The tree of a file. Labelled HCL blocks become nested objects, repeated ones lists, as in HCL's JSON form.
pub(super) fn parse(text: &str) -> Result<Map<String, Json>, String> {
    let parsed = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| format!("not valid JSON: {error}"))?
    } else {
        hcl::from_str(text).map_err(|error| hcl_error(text, &error))?
    };
    match parsed {
        Json::Object(root) => Ok(root),
        _ => Err("give blocks, as in agent { … }".to_owned()),
    }
}

fn hcl_error(text: &str, error: &hcl::Error) -> String {
    let hcl::Error::Parse(error) = error else {
        return format!("not valid HCL: {error}");
    };
    let line = error.location().line();
    let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let advice = advice(source).map(|advice| format!("; {advice}"));
    format!(
        "not valid HCL at line {line}, `{}`: {}{}",
        source.trim(),
        error.message(),
        advice.unwrap_or_default()
    )
}

/// What to write instead of the forms that the first version of HCL took and the second does not.
fn advice(line: &str) -> Option<&'static str> {
    let line = line.trim();
    let outside: String = line.split('"').step_by(2).collect();
    let opened = outside.matches('{').count();
    if line.starts_with('"') {
        Some("write the key without quotes")
    } else if opened > 1 || (opened == 1 && outside.matches('=').count() > 1) {
        Some("write each block over several lines: its name and `{`, its keys one a line, then `}`")
    } else if outside.matches('=').count() > 1 {
        Some("write one key a line")
    } else {
        None
    }
}
