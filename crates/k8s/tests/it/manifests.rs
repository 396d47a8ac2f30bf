//! What `manifests/` tells the programs, read by the programs.

use std::error::Error;
use std::path::Path;

use k8s::inject::Rules;
use serde_json::Value;

/// `key` of the ConfigMap `name` of `manifests/signet.yaml`.
fn config(name: &str, key: &str) -> Result<String, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/signet.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path)?)?;
    let map = objects
        .iter()
        .find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name)
        .ok_or("no such ConfigMap")?;
    Ok(map["data"][key].as_str().ok_or("no such key")?.to_owned())
}

#[test]
fn the_controller_takes_its_configuration() {
    let text = config("signet-controller", "controller.yaml").unwrap();
    let config = k8s::controller::config::read(&text, None).unwrap();
    assert!(config.class.takes("spire-server-signet") && config.class.takes(""));
    assert_eq!(config.webhook.configuration, "signet-controller");
    assert_eq!(config.health_address.unwrap().port(), 8083);
}

#[test]
fn the_injector_takes_its_rules() {
    let text = config("signet-injector", "injector.yaml").unwrap();
    let whole: Value = serde_saphyr::from_str(&text).unwrap();
    let rules: Rules = serde_json::from_value(whole["inject"].clone()).unwrap();
    assert_eq!(rules.validate(), Vec::<String>::new());
    assert_eq!(rules.own_namespace, "spire-server");
    assert!(
        rules
            .excluded_namespaces
            .contains(&"spire-system".to_owned())
    );
}
