//! The Go types a template can reach, from `shapes.txt`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

/// A Go type as far as templates tell types apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ty {
    String,
    Int,
    Float,
    Bool,
    /// metav1.Time.
    Time,
    /// Never filled.
    Opaque,
    Struct(&'static str),
    Pointer(Arc<Self>),
    List(Arc<Self>),
    /// Keys are strings.
    Map(Arc<Self>),
    /// What cannot be told before the template runs.
    Unknown,
}

impl Ty {
    /// The type behind any pointers, as templates see it.
    pub(super) fn target(&self) -> &Self {
        match self {
            Self::Pointer(inner) => inner.target(),
            other => other,
        }
    }

    /// As a message names it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::String => "string".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Float => "float64".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Time => "Time".to_owned(),
            Self::Opaque => "FieldsV1".to_owned(),
            Self::Struct(name) => (*name).to_owned(),
            Self::Pointer(inner) => format!("*{}", inner.name()),
            Self::List(inner) => format!("[]{}", inner.name()),
            Self::Map(inner) => format!("map[string]{}", inner.name()),
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

/// One field of a struct.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Its name in JSON; `.` when it is read from the struct's own object.
    pub(super) json: &'static str,
    pub(super) ty: Ty,
}

/// Fields by Go name. Getter methods stand among them: called without arguments, they look the same in a template.
pub(super) type Struct = BTreeMap<&'static str, Field>;

/// The fields that have a getter in Go: `PodMeta.GetName`.
const GETTERS: [&str; 15] = [
    "Name",
    "GenerateName",
    "Namespace",
    "SelfLink",
    "UID",
    "ResourceVersion",
    "Generation",
    "CreationTimestamp",
    "DeletionTimestamp",
    "DeletionGracePeriodSeconds",
    "Labels",
    "Annotations",
    "OwnerReferences",
    "Finalizers",
    "ManagedFields",
];

/// The struct of this name; none for a name that `shapes.txt` does not define.
pub(super) fn named(name: &str) -> Option<&'static Struct> {
    static ALL: LazyLock<HashMap<&'static str, Struct>> =
        LazyLock::new(|| parse(include_str!("shapes.txt")));
    ALL.get(name)
}

fn parse(text: &'static str) -> HashMap<&'static str, Struct> {
    let mut all: HashMap<&'static str, Struct> = HashMap::new();
    let mut name = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("struct"), Some(next), None) => {
                name = next;
                all.entry(name).or_default();
            }
            (Some(go), Some(json), Some(ty)) => {
                let field = Field {
                    json,
                    ty: parse_type(ty),
                };
                all.entry(name).or_default().insert(go, field);
            }
            _ => {}
        }
    }
    promote(&mut all);
    let getters: Vec<(&'static str, Field)> = all.get("ObjectMeta").map_or_else(Vec::new, |meta| {
        let getter = |name: &&'static str| {
            let field = meta.get(name)?.clone();
            Some((&*format!("Get{name}").leak(), field))
        };
        GETTERS.iter().filter_map(getter).collect()
    });
    all.entry("ObjectMeta").or_default().extend(getters);
    all
}

/// Fields of an embedded struct are also fields of the one it is embedded in, unless that has its own of the name.
fn promote(all: &mut HashMap<&'static str, Struct>) {
    let mut promoted: Vec<(&'static str, &'static str, Field)> = Vec::new();
    for (name, fields) in &*all {
        for (go, field) in fields {
            let Ty::Struct(embedded) = field.ty else {
                continue;
            };
            if field.json == "." && *go == embedded {
                let inner = all.get(embedded).into_iter().flatten();
                promoted.extend(inner.map(|(go, field)| (*name, *go, field.clone())));
            }
        }
    }
    for (name, go, field) in promoted {
        all.entry(name).or_default().entry(go).or_insert(field);
    }
}

fn parse_type(text: &'static str) -> Ty {
    if let Some(inner) = text.strip_prefix('*') {
        return Ty::Pointer(Arc::new(parse_type(inner)));
    }
    if let Some(inner) = text.strip_prefix("[]") {
        return Ty::List(Arc::new(parse_type(inner)));
    }
    if let Some(inner) = text.strip_prefix("{}") {
        return Ty::Map(Arc::new(parse_type(inner)));
    }
    match text {
        "string" => Ty::String,
        "int" => Ty::Int,
        "float" => Ty::Float,
        "bool" => Ty::Bool,
        "time" => Ty::Time,
        "opaque" => Ty::Opaque,
        name => Ty::Struct(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_struct_that_is_named_is_there() {
        let text = include_str!("shapes.txt");
        let all = parse(text);
        assert!(all.len() > 100);
        for (name, fields) in &all {
            assert!(!fields.is_empty(), "{name}");
            for (go, field) in fields {
                let mut ty = &field.ty;
                while let Ty::Pointer(inner) | Ty::List(inner) | Ty::Map(inner) = ty {
                    ty = inner;
                }
                if let Ty::Struct(inner) = ty {
                    assert!(all.contains_key(inner), "{name}.{go}: {inner}");
                }
            }
        }
    }

    #[test]
    fn names_are_gos() {
        let spec = named("PodSpec").unwrap();
        for go in [
            "DNSPolicy",
            "ServiceAccountName",
            "DeprecatedServiceAccount",
            "HostIPC",
            "NodeName",
        ] {
            assert!(spec.contains_key(go), "{go}");
        }
        let meta = named("ObjectMeta").unwrap();
        assert_eq!(meta["GetUID"].json, "uid");
        assert_eq!(
            named("Volume").unwrap()["ConfigMap"].json,
            "configMap",
            "promoted"
        );
    }
}
