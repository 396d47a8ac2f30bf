//! Kubernetes' JSON as Go's structs: Go's field names, and zero values for what is absent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotmpl::Value;
use serde_json::Value as Json;

use super::shapes::{self, Ty};

/// What a template reads, so that nothing else need be made of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// A whole struct is printed or handed to a function.
    pub(super) all: bool,
    /// Struct and field.
    pub(super) fields: BTreeSet<(&'static str, &'static str)>,
}

impl Needs {
    pub(super) fn extend(&mut self, other: &Self) {
        self.all |= other.all;
        self.fields.extend(&other.fields);
    }

    fn has(&self, of: &'static str, field: &'static str) -> bool {
        self.all || self.fields.contains(&(of, field))
    }
}

/// `json` as the struct `name`, with the fields of `needs`.
pub(super) fn project(name: &'static str, json: &Json, needs: &Needs) -> Value {
    let Some(shape) = shapes::named(name) else {
        return Value::Nil;
    };
    let unfolded = int_or_string(name, json);
    let json = unfolded.as_ref().unwrap_or(json);
    let fields = shape.iter().filter(|(go, _)| needs.has(name, go));
    let fields = fields.map(|(go, field)| {
        let value = match field.json {
            "." => Some(json),
            key => json.get(key),
        };
        (Arc::from(*go), typed(&field.ty, value, needs))
    });
    Value::Map(Arc::new(fields.collect()))
}

fn typed(ty: &Ty, json: Option<&Json>, needs: &Needs) -> Value {
    let json = json.filter(|json| !json.is_null());
    match ty {
        Ty::Pointer(inner) => json.map_or(Value::Nil, |json| typed(inner, Some(json), needs)),
        Ty::String => text(json.map_or_else(String::new, plain)),
        Ty::Int => Value::Int(json.and_then(Json::as_i64).unwrap_or(0)),
        Ty::Float => Value::Float(json.and_then(Json::as_f64).unwrap_or(0.0)),
        Ty::Bool => Value::Bool(json.and_then(Json::as_bool).unwrap_or(false)),
        Ty::Time => text(go_time(json.and_then(Json::as_str))),
        Ty::Opaque | Ty::Unknown => Value::Nil,
        Ty::Struct(name) => project(name, json.unwrap_or(&Json::Null), needs),
        Ty::List(inner) => {
            let items = json.and_then(Json::as_array).into_iter().flatten();
            Value::List(items.map(|item| typed(inner, Some(item), needs)).collect())
        }
        Ty::Map(inner) => {
            let entries = json.and_then(Json::as_object).into_iter().flatten();
            let entries = entries
                .map(|(key, value)| (Arc::from(key.as_str()), typed(inner, Some(value), needs)));
            Value::Map(Arc::new(entries.collect::<BTreeMap<_, _>>()))
        }
    }
}

fn text(text: String) -> Value {
    Value::String(text.into())
}

/// A string; quantities may come as bare numbers.
fn plain(json: &Json) -> String {
    json.as_str()
        .map_or_else(|| json.to_string(), str::to_owned)
}

/// As Go prints a time: `2026-11-26 11:00:00 +0000 UTC`.
fn go_time(json: Option<&str>) -> String {
    let time = json.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or_else(
        || "0001-01-01 00:00:00 +0000 UTC".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
    )
}

/// A bare number or string as the struct that Go reads it into.
fn int_or_string(name: &str, json: &Json) -> Option<Json> {
    let is_it = name == "IntOrString";
    is_it.then(|| match json {
        Json::String(text) => serde_json::json!({ "type": 1, "strVal": text }),
        number => serde_json::json!({ "type": 0, "intVal": number }),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ctl_02_zero_values_and_names_are_gos() {
        let all = Needs {
            all: true,
            ..Needs::default()
        };
        let pod = json!({
            "containers": [{ "name": "app", "ports": [{ "containerPort": 80 }],
                "livenessProbe": { "httpGet": { "port": "web" } } }],
            "dnsPolicy": "ClusterFirst", "priority": 5, "overhead": { "cpu": 1 },
        });
        let value = project("PodSpec", &pod, &all);
        let at = |path: &[&str]| {
            path.iter().fold(value.clone(), |value, name| {
                value.field(name).unwrap().clone()
            })
        };
        assert_eq!(at(&["DNSPolicy"]), Value::String("ClusterFirst".into()));
        assert_eq!(at(&["HostNetwork"]), Value::Bool(false));
        assert_eq!(at(&["Priority"]), Value::Int(5));
        assert_eq!(at(&["SecurityContext"]), Value::Nil, "a nil pointer");
        assert_eq!(
            at(&["NodeSelector"]).len(),
            Some(0),
            "a nil map is an empty one"
        );
        assert_eq!(at(&["Overhead", "cpu"]), Value::String("1".into()));
        let container = at(&["Containers"]).index(&Value::Int(0)).unwrap();
        let probe = container.field("LivenessProbe").unwrap();
        let port = probe.field("HTTPGet").unwrap().field("Port").unwrap();
        assert_eq!(port.field("StrVal"), Some(&Value::String("web".into())));
    }

    #[test]
    fn times_print_as_in_go() {
        assert_eq!(
            go_time(Some("2026-11-26T11:00:00Z")),
            "2026-11-26 11:00:00 +0000 UTC"
        );
        assert_eq!(go_time(None), "0001-01-01 00:00:00 +0000 UTC");
    }
}
