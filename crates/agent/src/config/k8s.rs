//! `WorkloadAttestor "k8s"`.

use std::path::PathBuf;
use std::time::Duration;

use runtime::config::Section;

use super::{K8sAttestorConfig, KubeletAuth, KubeletPort, refuse};

/// Where Kubernetes mounts a pod's service account.
const DEFAULT_CA_PATH: &str = "/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const DEFAULT_TOKEN_PATH: &str = "/run/secrets/kubernetes.io/serviceaccount/token";
/// The kubelet's own default.
const DEFAULT_SECURE_PORT: u16 = 10_250;
/// SPIRE's, which its charts set.
const DEFAULT_NODE_NAME_ENV: &str = "MY_NODE_NAME";
/// SPIRE's: half a minute in all, for a kubelet that is slow to list a container.
const DEFAULT_ATTEMPTS: u32 = 60;
const DEFAULT_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn read(data: &mut Section) -> Option<K8sAttestorConfig> {
    let port = port(data);
    let attempts = data.get::<u32>("max_poll_attempts");
    let interval = data.get::<Duration>("poll_retry_interval");
    let node_name: Option<String> = data.get("node_name");
    let node_name_env: Option<String> = data.get("node_name_env");
    let disable = data.get("disable_container_selectors");
    // Files are read for each question; and containers are found by cgroups alone, as SPIRE's new locator does at first.
    data.ignore("reload_interval");
    data.ignore("use_new_container_locator");
    data.ignore("verbose_container_locator_logs");
    refuse(
        data,
        "sigstore",
        "leave it out; images are known by name and digest",
    );
    refuse(data, "experimental", "leave it out");
    refuse(
        data,
        "disable_kubelet_client",
        "leave it out; the kubelet is asked",
    );
    for (key, is_zero) in [
        ("max_poll_attempts", attempts == Some(0)),
        ("poll_retry_interval", interval == Some(Duration::ZERO)),
    ] {
        if is_zero {
            data.problem(
                key,
                "0 will not do: the kubelet has to be asked; leave it out for the default",
            );
            return None;
        }
    }
    Some(K8sAttestorConfig {
        port: port?,
        node_name: node_name.filter(|name| !name.is_empty()),
        node_name_env: node_name_env
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| DEFAULT_NODE_NAME_ENV.to_owned()),
        max_poll_attempts: attempts.unwrap_or(DEFAULT_ATTEMPTS),
        poll_retry_interval: interval.unwrap_or(DEFAULT_INTERVAL),
        disable_container_selectors: disable.unwrap_or(false),
    })
}

fn port(data: &mut Section) -> Option<KubeletPort> {
    let read_only = data
        .get::<u16>("kubelet_read_only_port")
        .filter(|port| *port != 0);
    let secure = data
        .get::<u16>("kubelet_secure_port")
        .filter(|port| *port != 0);
    let skip = data.get("skip_kubelet_verification").unwrap_or(false);
    let ca_path = data.get::<PathBuf>("kubelet_ca_path");
    let auth = auth(data);
    match (read_only, secure) {
        (Some(_), Some(_)) => {
            let both = "give either this or kubelet_secure_port";
            data.problem("kubelet_read_only_port", both);
            None
        }
        (Some(port), None) => Some(KubeletPort::ReadOnly(port)),
        (None, port) => Some(KubeletPort::Secure {
            port: port.unwrap_or(DEFAULT_SECURE_PORT),
            ca_path: (!skip).then(|| ca_path.unwrap_or_else(|| DEFAULT_CA_PATH.into())),
            auth: auth?,
        }),
    }
}

fn auth(data: &mut Section) -> Option<KubeletAuth> {
    let token = data.get::<PathBuf>("token_path");
    let certificate = data.get::<PathBuf>("certificate_path");
    let key = data.get::<PathBuf>("private_key_path");
    let anonymous = data.get("use_anonymous_authentication").unwrap_or(false);
    let ways = [
        token.is_some(),
        certificate.is_some() || key.is_some(),
        anonymous,
    ];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        data.problem(
            "token_path",
            "give one of token_path, certificate_path with private_key_path, and use_anonymous_authentication",
        );
        return None;
    }
    match (certificate, key) {
        (Some(certificate_path), Some(private_key_path)) => Some(KubeletAuth::Certificate {
            certificate_path,
            private_key_path,
        }),
        (None, None) if anonymous => Some(KubeletAuth::Anonymous),
        (None, None) => Some(KubeletAuth::Token(
            token.unwrap_or_else(|| DEFAULT_TOKEN_PATH.into()),
        )),
        (certificate, _) => {
            let missing = if certificate.is_some() {
                "private_key_path"
            } else {
                "certificate_path"
            };
            data.problem(missing, "missing; certificate and key go together");
            None
        }
    }
}
