//! Probes and lifecycle hooks that would run into mTLS, since the kubelet has no SVID: found, and asked of Envoy instead.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{containers, name_of};

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Which of a container's questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// `startupProbe`
    Startup,
    /// `readinessProbe`
    Readiness,
    /// `livenessProbe`
    Liveness,
    /// `lifecycle.postStart`
    PostStart,
    /// `lifecycle.preStop`
    PreStop,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Startup,
        Self::Readiness,
        Self::Liveness,
        Self::PostStart,
        Self::PreStop,
    ];

    /// Its name in paths.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
            Self::PostStart => "post-start",
            Self::PreStop => "pre-stop",
        }
    }

    /// Where it stands in a container.
    const fn place(self) -> &'static [&'static str] {
        match self {
            Self::Startup => &["startupProbe"],
            Self::Readiness => &["readinessProbe"],
            Self::Liveness => &["livenessProbe"],
            Self::PostStart => &["lifecycle", "postStart"],
            Self::PreStop => &["lifecycle", "preStop"],
        }
    }

    fn of(self, container: &Value) -> Option<&Value> {
        self.place()
            .iter()
            .try_fold(container, |at, key| at.get(key))
    }

    fn of_mut(self, container: &mut Value) -> Option<&mut Map<String, Value>> {
        let found = self
            .place()
            .iter()
            .try_fold(container, |at, key| at.get_mut(key));
        found?.as_object_mut()
    }
}

/// What is asked of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// A GET of this path, with its query.
    Http { path: String, tls: bool },
    /// Whether somebody listens.
    Tcp,
    /// gRPC's health service.
    Grpc { service: String },
}

/// A probe or hook to be asked of Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) container: String,
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    pub(crate) check: Check,
    /// In seconds.
    pub(crate) period: u64,
    /// In seconds.
    pub(crate) timeout: u64,
    /// `httpGet`, `tcpSocket` or `grpc`, and what stands there.
    handler: (&'static str, Value),
}

/// A probe or hook that was changed, and what stood there: part of the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repointed {
    /// The container's name.
    pub container: String,
    /// Which of its questions.
    pub kind: Kind,
    /// Such as `{"tcpSocket": {"port": 80}}`.
    pub handler: Map<String, Value>,
}

fn path_of(container: &str, kind: Kind) -> String {
    format!("/signet/{container}/{}", kind.name())
}

impl Probe {
    /// Where Envoy answers it.
    pub(crate) fn path(&self) -> String {
        path_of(&self.container, self.kind)
    }

    /// For the status.
    pub(crate) fn repointed(&self) -> Repointed {
        let (key, value) = &self.handler;
        Repointed {
            container: self.container.clone(),
            kind: self.kind,
            handler: Map::from_iter([((*key).to_owned(), value.clone())]),
        }
    }

    /// The key that goes, when it is not `httpGet` itself.
    pub(crate) fn replaced(&self) -> Option<&'static str> {
        Some(self.handler.0).filter(|key| *key != "httpGet")
    }

    /// The `httpGet` that comes. Headers stay: Envoy hands them on.
    pub(crate) fn http_get(&self, port: u16) -> Value {
        let mut get = json!({"path": self.path(), "port": port, "scheme": "HTTP"});
        if let Some(headers) = self.handler.1.get("httpHeaders") {
            get["httpHeaders"] = headers.clone();
        }
        get
    }

    /// Where it stands in the pod's spec.
    pub(crate) fn place(&self, pod: &Value) -> Option<Vec<String>> {
        LISTS.into_iter().find_map(|list| {
            let at = containers(pod, list).position(|one| name_of(one) == self.container)?;
            let mut place = vec!["spec".to_owned(), list.to_owned(), at.to_string()];
            place.extend(self.kind.place().iter().map(ToString::to_string));
            Some(place)
        })
    }
}

/// The probes and hooks of all containers that ask one of these ports.
pub(crate) fn find(pod: &Value, ports: &[u16]) -> Vec<Probe> {
    let all = LISTS.into_iter().flat_map(|list| containers(pod, list));
    let of = |container| {
        Kind::ALL
            .into_iter()
            .filter_map(move |kind| read(container, kind))
    };
    all.flat_map(of)
        .filter(|probe| ports.contains(&probe.port))
        .collect()
}

fn read(container: &Value, kind: Kind) -> Option<Probe> {
    let probe = kind.of(container)?;
    let seconds = |key: &str, default| {
        let given = probe.get(key).and_then(Value::as_u64);
        given.filter(|seconds| *seconds > 0).unwrap_or(default)
    };
    let http = || Some(("httpGet", probe.get("httpGet")?));
    let tcp = || Some(("tcpSocket", probe.get("tcpSocket")?));
    let grpc = || Some(("grpc", probe.get("grpc")?));
    // The kubelet knows no other hooks that use the network.
    let hook = matches!(kind, Kind::PostStart | Kind::PreStop);
    let (key, handler) = http().or_else(|| if hook { None } else { tcp().or_else(grpc) })?;
    // Another host is not behind this pod's ports.
    let host = handler.get("host").and_then(Value::as_str);
    if host.is_some_and(|host| !host.is_empty()) || !handler.is_object() {
        return None;
    }
    let check = match key {
        "httpGet" => Check::Http {
            path: http_path(handler),
            tls: handler
                .get("scheme")
                .is_some_and(|scheme| scheme == "HTTPS"),
        },
        "tcpSocket" => Check::Tcp,
        _ => Check::Grpc {
            service: text(handler, "service").to_owned(),
        },
    };
    Some(Probe {
        container: name_of(container).to_owned(),
        kind,
        port: port(container, handler.get("port")?)?,
        check,
        period: seconds("periodSeconds", 10),
        timeout: seconds("timeoutSeconds", 1),
        handler: (key, handler.clone()),
    })
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// As the kubelet asks it: from the root, without a fragment.
fn http_path(handler: &Value) -> String {
    let path = text(handler, "path");
    let path = path.split('#').next().unwrap_or_default();
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

/// A number, or the name of one of the container's own ports.
fn port(container: &Value, port: &Value) -> Option<u16> {
    let number = match port.as_str() {
        None => port.as_u64()?,
        Some(name) => {
            let ports = container.get("ports")?.as_array()?;
            let named = ports.iter().find(|port| text(port, "name") == name)?;
            named.get("containerPort")?.as_u64()?
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// Puts back what stood there. One that somebody has changed since is theirs, and stays.
pub(crate) fn put_back(spec: &mut Value, repointed: &[Repointed]) {
    for one in repointed {
        let lists = LISTS.into_iter().find(|list| {
            let all = spec
                .get(list)
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            all.into_iter()
                .any(|container| name_of(container) == one.container)
        });
        let all = lists.and_then(|list| spec.get_mut(list)?.as_array_mut());
        let mut all = all.into_iter().flatten();
        let container = all.find(|container| name_of(container) == one.container);
        let Some(probe) = container.and_then(|container| one.kind.of_mut(container)) else {
            continue;
        };
        let ours = path_of(&one.container, one.kind);
        if probe
            .get("httpGet")
            .is_some_and(|get| text(get, "path") == ours)
        {
            probe.remove("httpGet");
            probe.extend(one.handler.clone());
        }
    }
}

#[cfg(test)]
mod tests;
