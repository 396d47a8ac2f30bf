//! Where a custom resource has its pod templates: `rollouts.argoproj.io=.spec.template`.

use std::str::FromStr;

use serde_json::Value;

/// The pod templates of one kind of custom resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTemplate {
    /// Kind or plural, in lower case.
    resource: String,
    group: String,
    path: Vec<Step>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    /// Every item of a list, or every member of an object.
    Every,
}

/// Text that names no pod template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?}: {problem}; write <resource>.<group>=<path>, such as rollouts.argoproj.io=.spec.template"
)]
pub struct PodTemplateError {
    text: String,
    problem: &'static str,
}

impl FromStr for PodTemplate {
    type Err = PodTemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |problem| PodTemplateError {
            text: text.to_owned(),
            problem,
        };
        let (name, path) = text.split_once('=').ok_or_else(|| error("there is no ="))?;
        let (resource, group) = name
            .split_once('.')
            .ok_or_else(|| error("there is no group"))?;
        if resource.is_empty() || group.is_empty() {
            return Err(error("resource or group is empty"));
        }
        Ok(Self {
            resource: resource.to_lowercase(),
            group: group.to_owned(),
            path: steps(path.trim()).map_err(error)?,
        })
    }
}

/// A path as `kubectl -o jsonpath` writes it, as far as it can name places: keys, `['keys']`, `[*]` and `.*`.
fn steps(path: &str) -> Result<Vec<Step>, &'static str> {
    let bare = path
        .strip_prefix('{')
        .and_then(|bare| bare.strip_suffix('}'));
    let bare = bare.unwrap_or(path);
    let mut rest = bare.strip_prefix('$').unwrap_or(bare);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('[') {
            Some(inside) => in_brackets(inside)?,
            None => after_dot(rest.strip_prefix('.').ok_or("a path begins with a dot")?)?,
        };
        steps.push(step);
        rest = after;
    }
    if steps.is_empty() {
        return Err("the path leads nowhere");
    }
    Ok(steps)
}

fn in_brackets(inside: &str) -> Result<(Step, &str), &'static str> {
    if let Some(after) = inside.strip_prefix("*]") {
        return Ok((Step::Every, after));
    }
    let mut quotes = ['\'', '"'].into_iter();
    let quoted = quotes.find_map(|quote| Some((quote, inside.strip_prefix(quote)?)));
    let (quote, rest) = quoted.ok_or("brackets hold * or a key in quotes")?;
    let (key, after) = rest.split_once(quote).ok_or("a quote is not closed")?;
    let after = after.strip_prefix(']').ok_or("a bracket is not closed")?;
    Ok((Step::Key(key.to_owned()), after))
}

fn after_dot(rest: &str) -> Result<(Step, &str), &'static str> {
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (key, after) = rest.split_at(end);
    let good = |c: char| c.is_alphanumeric() || "-_/".contains(c);
    match key {
        "" => Err("a key is empty"),
        "*" => Ok((Step::Every, after)),
        key if key.chars().all(good) => Ok((Step::Key(key.to_owned()), after)),
        _ => Err("filters, slices and the like name no one place"),
    }
}

impl PodTemplate {
    /// Whether it is about objects of this group and kind.
    pub(super) fn is_of(&self, group: &str, kind: &str) -> bool {
        let kind = kind.to_lowercase();
        let stem = kind.strip_suffix('y');
        let is_plural = |plural: &str| {
            plural
                .strip_prefix(&kind)
                .is_some_and(|end| ["", "s", "es"].contains(&end))
                || stem.is_some_and(|stem| plural.strip_prefix(stem) == Some("ies"))
        };
        self.group == group && is_plural(&self.resource)
    }

    /// JSON pointers to the templates that are there.
    pub(super) fn places(&self, object: &Value) -> Vec<String> {
        let mut places = vec![(String::new(), object)];
        for step in &self.path {
            places = places
                .into_iter()
                .flat_map(|(place, value)| next(&place, value, step))
                .collect();
        }
        let is_template = |value: &Value| value.get("spec").is_some_and(Value::is_object);
        let found = places.into_iter().filter(|(_, value)| is_template(value));
        found.map(|(place, _)| place).collect()
    }
}

fn next<'a>(place: &str, value: &'a Value, step: &Step) -> Vec<(String, &'a Value)> {
    let member = |key: &str, value: &'a Value| {
        let escaped = key.replace('~', "~0").replace('/', "~1");
        (format!("{place}/{escaped}"), value)
    };
    match (step, value) {
        (Step::Key(key), _) => value
            .get(key)
            .map(|found| member(key, found))
            .into_iter()
            .collect(),
        (Step::Every, Value::Object(all)) => {
            all.iter().map(|(key, one)| member(key, one)).collect()
        }
        (Step::Every, Value::Array(all)) => {
            let items = all.iter().enumerate();
            items
                .map(|(index, one)| member(&index.to_string(), one))
                .collect()
        }
        (Step::Every, _) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(text: &str) -> PodTemplate {
        text.parse().expect(text)
    }

    #[test]
    fn resources_are_named_as_kubectl_names_them() {
        for (name, group, kind, is) in [
            ("rollouts.argoproj.io", "argoproj.io", "Rollout", true),
            ("Rollout.argoproj.io", "argoproj.io", "Rollout", true),
            ("proxies.x.io", "x.io", "Proxy", true),
            ("classes.x.io", "x.io", "Class", true),
            ("rollouts.argoproj.io", "x.io", "Rollout", false),
            (
                "rollouts.argoproj.io",
                "argoproj.io",
                "RolloutManager",
                false,
            ),
            ("rollouts.argoproj.io", "argoproj.io", "Workflow", false),
        ] {
            let template = template(&format!("{name}=.spec.template"));
            assert_eq!(template.is_of(group, kind), is, "{name} {group} {kind}");
        }
    }

    #[test]
    fn paths_lead_to_every_template_that_is_there() {
        let pod = json!({"spec": {"containers": []}});
        let object = json!({"spec": {
            "template": pod,
            "groups": [{"template": pod}, {"template": null}, {"template": pod}],
            "roles": {"a/b": {"template": pod}, "c": {}},
        }});
        for (path, expected) in [
            (".spec.template", &["/spec/template"] as &[&str]),
            ("{.spec.template}", &["/spec/template"]),
            ("$['spec'][\"template\"]", &["/spec/template"]),
            (
                ".spec.groups[*].template",
                &["/spec/groups/0/template", "/spec/groups/2/template"],
            ),
            (".spec.roles.*.template", &["/spec/roles/a~1b/template"]),
            (".spec.nothing", &[]),
            (".spec.template.spec", &[]),
        ] {
            let template = template(&format!("x.x.io={path}"));
            assert_eq!(template.places(&object), expected, "{path}");
        }
    }

    #[test]
    fn what_names_no_template_is_told() {
        for (text, told) in [
            ("rollouts.argoproj.io", "there is no ="),
            ("rollouts=.spec", "there is no group"),
            (".argoproj.io=.spec", "resource or group is empty"),
            ("a.b=", "the path leads nowhere"),
            ("a.b=spec", "begins with a dot"),
            ("a.b=.spec..template", "a key is empty"),
            ("a.b=.spec[0].template", "brackets hold * or a key"),
            ("a.b=.spec['x", "a quote is not closed"),
            ("a.b=.spec['x'", "a bracket is not closed"),
            ("a.b=.spec.a?(b)", "name no one place"),
        ] {
            let error = text.parse::<PodTemplate>().expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
