use std::collections::BTreeMap;

use super::Found;

/// Puts values in place of `$NAME` and `${NAME}`. Comment lines stay as they are; a name that is not set is a problem.
pub(super) fn expand(text: &str, environment: &BTreeMap<String, String>, found: &Found) -> String {
    let mut expanded = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        if start.starts_with('#') || start.starts_with("//") {
            expanded.push_str(line);
        } else {
            expand_line(line, environment, found, &mut expanded);
        }
    }
    expanded
}

fn expand_line(
    mut line: &str,
    environment: &BTreeMap<String, String>,
    found: &Found,
    expanded: &mut String,
) {
    while let Some(at) = line.find('$') {
        expanded.push_str(&line[..at]);
        let after = &line[at + 1..];
        let Some((name, rest)) = name(after) else {
            expanded.push('$');
            line = after;
            continue;
        };
        match environment.get(name) {
            Some(value) => expanded.push_str(value),
            None => {
                let message = format!("the environment variable `{name}` is not set");
                found.add(String::new(), message);
            }
        }
        line = rest;
    }
    expanded.push_str(line);
}

/// The name that a text begins with, in braces or not, and what follows.
fn name(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        let (name, rest) = braced.split_once('}')?;
        return is_name(name).then_some((name, rest));
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    is_name(name).then_some((name, rest))
}

fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(is_part) && name.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_outside_of_comments() {
        let environment =
            [("TOKEN", "abc"), ("PORT", "8081")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let environment = BTreeMap::from(environment);
        let check = |text, expected, problems| {
            let found = Found::default();
            assert_eq!(expand(text, &environment, &found), expected);
            assert_eq!(found.take().len(), problems, "{text}");
        };
        check("a = \"$TOKEN-${TOKEN}\"", "a = \"abc-abc\"", 0);
        check("a = ${PORT}\n", "a = 8081\n", 0);
        check(
            "# costs $5, $MUCH\n// $MUCH",
            "# costs $5, $MUCH\n// $MUCH",
            0,
        );
        check(
            "a = \"$\" $1 ${ ${} ${a b}",
            "a = \"$\" $1 ${ ${} ${a b}",
            0,
        );
        check("a = \"$MISSING\"", "a = \"\"", 1);
        check("b = \"ä$PORTö\"", "b = \"ä8081ö\"", 0);
    }
}
