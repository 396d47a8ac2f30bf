//! Templates of agents' paths: text with `{{ .Field }}` in it, of which nothing more than fields is understood.

/// A template, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

impl Template {
    /// Parses a template that may name these fields; a field that ends in `.` stands for all names that begin with it.
    pub(super) fn parse(text: &str, fields: &[&str]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after
                .split_once("}}")
                .ok_or_else(|| format!("`{{{{` without `}}}}` in {text:?}"))?;
            let name = inside.trim().strip_prefix('.').unwrap_or_default();
            let known = fields.iter().any(|field| {
                field.strip_suffix('.').map_or(*field == name, |_| {
                    name.len() > field.len() && name.starts_with(field)
                })
            });
            if !known {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|field| format!("{{{{ .{field} }}}}"))
                    .collect();
                return Err(format!(
                    "`{{{{{inside}}}}}` is not understood; use {}",
                    fields.join(", ")
                ));
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Field(name.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Fills in the fields; tells the first that has no value.
    pub(super) fn render(&self, value: impl Fn(&str) -> Option<String>) -> Result<String, &str> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Field(name) => {
                    let value = value(name).filter(|value| !value.is_empty());
                    text.push_str(&value.ok_or(name.as_str())?);
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> Result<String, String> {
        let template = Template::parse(text, &["A", "B.C", "D."])?;
        let value = |name: &str| (name != "D.none").then(|| format!("<{name}>"));
        template
            .render(value)
            .map_err(|name| format!("no value: {name}"))
    }

    #[test]
    fn fields_are_filled_in() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(
            rendered("/x/{{ .A }}/{{.B.C}}{{ .D.e }}"),
            ok("/x/<A>/<B.C><D.e>")
        );
        assert_eq!(rendered("/plain"), ok("/plain"));
        assert_eq!(
            rendered("{{ .D.none }}"),
            Err("no value: D.none".to_owned())
        );
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for text in [
            "{{ .X }}",
            "{{ .A | upper }}",
            "{{ A }}",
            "{{ .A",
            "{{}}",
            "{{ .D. }}",
            "{{ if .A }}x{{ end }}",
        ] {
            let error = rendered(text).unwrap_err();
            assert!(error.contains("{{"), "{text}: {error}");
        }
    }
}
