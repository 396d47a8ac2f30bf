//! A stream of YAML documents, cut without being understood.

use serde_json::Value;

use super::OfflineError;

/// One document of a stream, its `---` line included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// All its bytes.
    pub text: &'a str,
    /// The line it begins in, counted from 1.
    pub line: usize,
}

/// Cuts a stream before every line that begins with `---`. The documents together are the stream.
#[must_use]
pub fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if at > start && is_marker(line) {
            documents.push(Document {
                text: &text[start..at],
                line: start_line,
            });
            (start, start_line) = (at, index + 1);
        }
        at += line.len();
    }
    if start < text.len() {
        documents.push(Document {
            text: &text[start..],
            line: start_line,
        });
    }
    documents
}

/// Three dashes at the very left always begin a document, even inside a block of text (YAML 1.2 §9.1.2).
fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

impl<'a> Document<'a> {
    /// Whether there is nothing in it but comments.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let lines = self.body().lines().map(str::trim);
        self.body().is_empty()
            || lines
                .clone()
                .all(|line| line.is_empty() || line.starts_with('#') || line == "...")
    }

    /// What follows the three dashes.
    #[must_use]
    pub fn body(&self) -> &'a str {
        if is_marker(self.text.split_inclusive('\n').next().unwrap_or_default()) {
            &self.text[3..]
        } else {
            self.text.strip_prefix('\u{feff}').unwrap_or(self.text)
        }
    }

    /// The marker, blank and comment lines before anything else.
    fn head(&self) -> &'a str {
        let mut end = 0;
        for line in self.text.split_inclusive('\n') {
            let rest = if is_marker(line) { &line[3..] } else { line };
            let rest = rest.trim_start_matches('\u{feff}').trim_start();
            if !(rest.is_empty() || rest.starts_with('#')) {
                break;
            }
            end += line.len();
        }
        &self.text[..end]
    }
}

/// Writes a changed document: as JSON where it was JSON, else as YAML.
pub(super) fn write(
    document: &Document<'_>,
    value: &Value,
    to: &mut String,
) -> Result<(), OfflineError> {
    let head = document.head();
    to.push_str(head);
    let rest = &document.text[head.len()..];
    if is_marker(rest.split_inclusive('\n').next().unwrap_or_default()) {
        to.push_str("---\n");
    }
    if document.body().trim_start().starts_with('{') {
        let text = serde_json::to_string_pretty(value);
        to.push_str(&text.map_err(|error| OfflineError::Write(error.to_string()))?);
        to.push('\n');
    } else {
        to.push_str(&super::one_to_yaml(value)?);
    }
    Ok(())
}
