"""The charts' values: closed schemas, and the names that users of SPIRE's charts know."""

import copy
import fnmatch
import json
import re

import jsonschema
import yaml

# Maps whose keys are the user's or Kubernetes' own.
OPEN = ("global", "*.affinity", "*ecurityContext", "*.resources.requests", "*.resources.limits", "spire-server.dataStore.sql", "injector.config")
# What users of SPIRE's charts may have in their values files.
KNOWN = """
global.spire.{trustDomain,clusterName,jwtIssuer,bundleConfigMap,upstreamServerAddress,strictMode,ingressControllerType,gatewayAPI}
global.spire.caSubject.{country,organization,commonName}
global.spire.recommendations.{enabled,namespaceLayout,namespacePSS,priorityClassName,strictMode,securityContexts,prometheus}
global.spire.namespaces.{create,system,server} global.spire.namespaces.system.{name,create,labels,annotations}
global.spire.image.registry global.spire.persistence.storageClass global.spire.tools
global.k8s.clusterDomain global.imagePullSecrets global.installAndUpgradeHooks.enabled global.deleteHooks.enabled
global.telemetry.prometheus.{enabled,podMonitor} global.telemetry.prometheus.podMonitor.{enabled,namespace,labels} global.openshift
spire-server.{kind,replicaCount,persistence,upstreamAuthority,federation,caKeyType,caTTL,defaultX509SvidTTL,defaultJwtSvidTTL,bundlePublisher}
spire-server.{externalControllerManagers,podDisruptionBudget,autoscaling,topologySpreadConstraints,unsupportedBuiltInPlugins,customPlugins}
spire-server.{extraVolumes,extraContainers,adminIDs,auditLogEnabled,jwtSVIDSupport,dynamicRegistration,tornjak,notifier.k8sBundle}
spire-server.dataStore.sql.{databaseType,databaseName,host,port,username,password,externalSecret,options}
spire-server.nodeAttestor.{k8sPSAT.serviceAccountAllowList,externalK8sPSAT,joinToken,tpmDirect,awsIID,httpChallenge}
spire-server.keyManager.{disk,memory,awsKMS}
spire-server.controllerManager.{className,watchClassless,filterByClassName,addEntryIDPrefix,entryIDPrefixCleanup,ignoreNamespaces,reconcile}
spire-server.controllerManager.{gcInterval,parentIDTemplate,cacheNamespaces,staticManifestMode,validatingWebhookConfiguration,identities}
spire-agent.{socketPath,socketAlternate,sockets,brokerAPI,authorizedDelegates,trustBundleURL,trustBundleFormat,trustBundleHostPath}
spire-agent.sds.{enabled,defaultSVIDName,defaultBundleName,defaultAllBundlesName,disableSPIFFECertValidation}
spire-agent.workloadAttestors.k8s.{verification,disableContainerSelectors,useNewContainerLocator} spire-agent.workloadAttestors.unix
spire-agent.nodeAttestor.{k8sPSAT,joinToken,tpmDirect,httpChallenge,awsIID}
spire-agent.{rebootstrapMode,rebootstrapDelay,persistence.type,kubeletConnectByHostname,hostNetwork,availabilityTarget,experimental,agents}
spiffe-csi-driver.{pluginName,kubeletPath,agentSocketPath,selinux,restrictedScc,nodeDriverRegistrar,validatingAdmissionPolicy}
"""


def expanded(text):
    for word in text.split():
        found = re.fullmatch(r"(.*)\{(.*)\}(.*)", word)
        yield from (f"{found[1]}{one}{found[3]}" for one in found[2].split(",")) if found else [word]


def maps(values, path=()):
    yield path, values
    for key, value in values.items():
        if isinstance(value, dict):
            yield from maps(value, (*path, key))


def with_value(values, path, value):
    changed = copy.deepcopy(values)
    place = changed
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return changed


def refused(validator, values, path):
    """Whether the schema refuses the values, and the error tells where."""
    said = [(*error.absolute_path, error.message) for error in validator.iter_errors(values)]
    return any(all(str(key) in json.dumps([str(word) for word in one]) for key in path) for one in said)


def hlm_02_schemas_are_closed(chart):
    """No value of a wrong type and no unknown key, at any place of the defaults; and the defaults themselves hold."""
    schema = json.loads((chart / "values.schema.json").read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text()) or {}
    validator = jsonschema.Draft7Validator(schema)
    for error in validator.iter_errors(values):
        yield f"{chart.name}: the defaults: {error.json_path}: {error.message}"
    for path, one in maps(values):
        where = ".".join(path)
        if not any(fnmatch.fnmatch(where, pattern) for pattern in OPEN) and not refused(validator, with_value(values, (*path, "noSuchValue"), 1), (*path, "noSuchValue")):
            yield f"{chart.name}: {where or 'values'} takes an unknown key"
        for key, value in one.items():
            # A version such as 1.10 is a number in YAML, and the operator's gcInterval is one of nanoseconds.
            wrong = [] if (*path, key)[-1] in ("tag", "gcInterval") else 7 if isinstance(value, (dict, list, str, bool)) or value is None else "seven"
            if not any(fnmatch.fnmatch(where, pattern) for pattern in OPEN[1:]) and not refused(validator, with_value(values, (*path, key), wrong), (*path, key)):
                yield f"{chart.name}: {'.'.join((*path, key))} takes {wrong!r}"


def accepts(schema, path, root):
    while "$ref" in schema:
        schema = root["definitions"][schema["$ref"].rpartition("/")[2]]
    if not path:
        return True
    below = schema.get("properties", {}).get(path[0], schema.get("additionalProperties", True))
    return below is True if isinstance(below, bool) else accepts(below, path[1:], root)


def hlm_03_a_migrated_file_means_what_it_meant(documents):
    """What of ci/from-spires-charts.yaml must be found in the programs' configurations and around them."""
    confs = {key: json.loads(text) for one in documents if one["kind"] == "ConfigMap" for key, text in one["data"].items() if key.endswith((".conf", ".yaml"))}
    server, agent, controller = confs["server.conf"]["server"], confs["agent.conf"]["agent"], confs["controller.yaml"]
    claims = [one["spec"]["volumeClaimTemplates"][0]["spec"] for one in documents if one["kind"] == "StatefulSet"]
    found = {
        "trustDomain": {server["trust_domain"], agent["trust_domain"], controller["trustDomain"], confs["injector.yaml"]["inject"]["trustDomain"]},
        "issuer": server["jwt_issuer"], "ca": (server["ca_key_type"], server["ca_ttl"], server["ca_subject"]["common_name"]),
        "ttl": (server["default_x509_svid_ttl"], server["default_jwt_svid_ttl"]), "admins": server["admin_ids"],
        "cluster": (controller["clusterName"], list(confs["server.conf"]["plugins"]["NodeAttestor"]["k8s_psat"]["plugin_data"]["clusters"])),
        "class": (controller["className"], controller["entryIDPrefixCleanup"], controller["ignoreNamespaces"][-1]),
        "bundle": (controller["signet"]["bundle"]["configMap"], controller["signet"]["bundle"]["namespace"]),
        "kubelet": confs["agent.conf"]["plugins"]["WorkloadAttestor"]["k8s"]["plugin_data"]["kubelet_ca_path"].rpartition("/")[2],
        "volume": [(one["storageClassName"], one["accessModes"], one["resources"]["requests"]["storage"]) for one in claims],
        "namespaces": {one["metadata"]["namespace"] for one in documents if one["kind"] in ("StatefulSet", "DaemonSet")},
        "monitors": {one["metadata"]["namespace"] for one in documents if one["kind"] == "PodMonitor"},
        "identities": sorted(one["metadata"]["name"].rpartition("-")[2] for one in documents if one["kind"] == "ClusterSPIFFEID"),
    }
    expected = {
        "trustDomain": {"corp.example"}, "issuer": "https://oidc.corp.example", "ca": ("ec-p384", "72h", "corp.example"), "ttl": ("2h", "30m"),
        "admins": ["spiffe://corp.example/ops"], "cluster": ("east", ["east"]), "class": ("ident-spire", "", "openshift-.*"),
        "bundle": ("corp-bundle", "ident-system"), "kubelet": "kubelet.crt", "volume": [("fast", ["ReadWriteOncePod"], "5Gi")],
        "namespaces": {"ident-system", "ident-server"}, "monitors": {"monitoring"}, "identities": ["default", "injector", "payments"],
    }
    yield from (f"{key}: {found[key]}, expected {value}" for key, value in expected.items() if found[key] != value)


def hlm_03_names_of_spires_charts_are_taken_and_explained(root, known=KNOWN):
    schema = json.loads((root / "helm" / "signet" / "values.schema.json").read_text())
    docs = (root / "docs" / "kubernetes.md").read_text()
    section = docs[docs.index("## Coming from SPIRE"):docs.index("Ours alone:")]
    words = set(re.findall(r"\w+", section))
    for name in expanded(known):
        path = name.split(".")
        if not accepts(schema, path, schema):
            yield f"{name}: the schema does not know it"
        if not words & set(path[1:]):
            yield f"{name}: docs/kubernetes.md does not say what becomes of it"
