"""Values that must render, and values that must not, with what has to be said about them."""

import names
import network
import pods

DOMAIN = {"trustDomain": "corp.example", "clusterName": "east"}


def spire(**more):
    return {"global": {"spire": {**DOMAIN, **more}}}


def prometheus(**more):
    return {"global": {"spire": DOMAIN, "telemetry": {"prometheus": {"enabled": True, **more}}}}


def part(name, **values):
    return {name: values}


def controller(**values):
    return part("spire-server", controllerManager=values)


# name: values
GOOD = {
    "default": {},
    "names": spire(),
    "recommended": spire(recommendations={"enabled": True}, namespaces={"create": True}),
    "recommended-names": spire(
        recommendations={"enabled": True},
        namespaces={"create": True, "server": {"name": "ident"}, "system": {"name": "ident-nodes", "labels": {"team": "sec"}}},
    ),
    "recommended-no-pss": spire(recommendations={"enabled": True, "namespacePSS": False}, namespaces={"create": True}),
    "one-namespace": spire(recommendations={"enabled": True, "namespaceLayout": False}),
    "strict": spire(strictMode=True),
    "issuer": spire(jwtIssuer="https://oidc.corp.example"),
    "subject": spire(caSubject={"country": "NL", "organization": "Corp", "commonName": "corp.example"}),
    "bundle-name": spire(bundleConfigMap="trust"),
    "storage-class": spire(persistence={"storageClass": "fast"}),
    "registry": {"global": {"spire": {"image": {"registry": "registry.corp.example:5000"}}, "imagePullSecrets": [{"name": "pull"}]}},
    "digest": {"image": {"digest": "sha256:" + "ab" * 32, "registry": "registry.corp.example"}},
    "registry-and-digest": {
        "global": {"spire": {"image": {"registry": "registry.corp.example:5000"}}, "imagePullSecrets": [{"name": "pull"}]},
        "image": {"digest": "sha256:" + "ab" * 32}, "injector": {"envoy": {"image": "docker.io/envoyproxy/envoy@sha256:" + "cd" * 32}},
    },
    "images-of-parts": {
        "spire-server": {"image": {"registry": "s.example", "digest": "sha256:" + "a1" * 32}, "controllerManager": {"image": {"tag": "a2"}}, "imagePullSecrets": ["s"]},
        "spire-agent": {"image": {"registry": "a.example", "tag": "a3"}, "imagePullSecrets": ["a"]},
        "spiffe-csi-driver": {"image": {"repository": "c/signet", "digest": "sha256:" + "a4" * 32}, "imagePullSecrets": ["c"]},
        "injector": {"image": {"registry": "i.example", "digest": "sha256:" + "a5" * 32}, "imagePullSecrets": ["i"]},
    },
    "part-image": part("spire-agent", image={"registry": "other.example", "repository": "x/signet", "tag": "9", "pullPolicy": "Always"}),
    "pull-secrets": {"spire-agent": {"imagePullSecrets": ["a"]}, "injector": {"imagePullSecrets": [{"name": "b"}]}},
    "openshift": {"global": {"openshift": True}},
    "cluster-domain": {"global": {"k8s": {"clusterDomain": "k8s.corp"}}},
    "figures": prometheus(),
    "pod-monitor": prometheus(podMonitor={"enabled": True, "namespace": "monitoring", "labels": {"release": "prom"}}),
    "service-monitor": prometheus(serviceMonitor={"enabled": True, "labels": {"release": "prom"}}),
    "rules": prometheus(rules={"enabled": True, "namespace": "monitoring", "labels": {"release": "prom"}}),
    "dashboard": prometheus(dashboard={"enabled": True}),
    "everything-watched": prometheus(serviceMonitor={"enabled": True}, rules={"enabled": True}, dashboard={"enabled": True}),
    "server-figures-only": part("spire-server", telemetry={"prometheus": {"enabled": True, "port": 9990}}),
    "server-off": {"spire-server": {"enabled": False}, "spire-agent": {"server": {"address": "spire.corp.example", "port": 443}}},
    "agent-off": part("spire-agent", enabled=False),
    "csi-off": {"spiffe-csi-driver": {"enabled": False}, "injector": {"volume": "hostPath"}},
    "injector-off": part("injector", enabled=False),
    "controller-off": controller(enabled=False),
    "server-alone": {"spire-agent": {"enabled": False}, "spiffe-csi-driver": {"enabled": False}, "injector": {"enabled": False}},
    "webhook-off": controller(validatingWebhookConfiguration={"enabled": False}),
    "webhook-ignore": controller(validatingWebhookConfiguration={"enabled": True, "failurePolicy": "Ignore"}),
    "controller-class": controller(className="blue", watchClassless=False, entryIDPrefixCleanup="", gcInterval=10000000000),
    "controller-env": controller(expandEnv=True, extraEnv=[{"name": "A", "value": "b"}], image={"tag": "0.2.0"}),
    "controller-own": controller(
        filterByClassName=True,
        dryRun=True,
        adoptFederation=True,
        tenants=[{"namespaceSelector": {"matchLabels": {"team": "a"}}, "pathPrefix": "/ns/{namespace}/", "maxTtl": "1h"}],
    ),
    "controller-more": controller(
        parentIDTemplate="spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}",
        ignoreNamespaces=["kube-system", "openshift-.*"],
        reconcile={"clusterSPIFFEIDs": True, "clusterStaticEntries": False, "clusterFederatedTrustDomains": False},
    ),
    "identities": controller(
        identities={
            "clusterSPIFFEIDs": {
                "default": {"enabled": False},
                "shop": {
                    "labels": {"team": "shop"},
                    "annotations": {"note": "x"},
                    "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/shop/{{ .PodMeta.Name }}",
                    "podSelector": {"matchLabels": {"app": "shop"}},
                    "namespaceSelector": {"matchExpressions": [{"key": "env", "operator": "In", "values": ["prod"]}]},
                    "dnsNameTemplates": ["{{ .PodMeta.Name }}.shop.svc"],
                    "workloadSelectorTemplates": ["k8s:ns:{{ .PodMeta.Namespace }}"],
                    "ttl": "1h",
                    "jwtTTL": "5m",
                    "federatesWith": ["partner.example"],
                    "autoPopulateDNSNames": True,
                },
            },
            "clusterStaticEntries": {
                "db": {"spiffeID": "spiffe://corp.example/db", "parentID": "spiffe://corp.example/node", "selectors": ["unix:uid:70"], "x509SVIDTTL": "2h"}
            },
            "clusterFederatedTrustDomains": {
                "partner": {
                    "trustDomain": "partner.example",
                    "bundleEndpointURL": "https://spire.partner.example:8443",
                    "bundleEndpointProfile": {"type": "https_spiffe", "endpointSPIFFEID": "spiffe://partner.example/spire/server"},
                }
            },
        }
    ),
    "server-keys": part("spire-server", caKeyType="ec-p384", jwtKeyType="rsa-2048", caTTL="720h", defaultX509SvidTTL="30m", defaultJwtSvidTTL="2m", agentTTL="8h"),
    "server-store-empty": part("spire-server", persistence={"type": "emptyDir"}, keyManager={"disk": {"enabled": False}, "memory": {"enabled": True}}),
    "server-store-host": part("spire-server", persistence={"type": "hostPath", "hostPath": "/var/lib/spire/server"}, nodeSelector={"kubernetes.io/hostname": "n1"}),
    "server-store-pvc": part("spire-server", persistence={"size": "10Gi", "storageClass": "fast", "accessMode": "ReadWriteOncePod"}),
    "server-attestors": part(
        "spire-server",
        nodeAttestor={"k8sPSAT": {"serviceAccountAllowList": ["a:b", "c:d"], "audience": ["mine"], "allowedNodeLabelKeys": ["zone"]}, "joinToken": {"enabled": True}},
    ),
    "server-tokens-only": {
        "spire-server": {"nodeAttestor": {"k8sPSAT": {"enabled": False}, "joinToken": {"enabled": True}}, "jwtSVIDSupport": {"enabled": False}},
        "spire-agent": {"enabled": False},
    },
    "server-pod": part(
        "spire-server",
        podAnnotations={"a": "b"}, podLabels={"c": "d"}, podSecurityContext={"runAsUser": 1000}, tolerations=[{"key": "x", "operator": "Exists"}],
        affinity={"nodeAffinity": {}}, extraEnv=[{"name": "TZ", "value": "UTC"}], extraVolumes=[{"name": "t", "emptyDir": {}}],
        extraVolumeMounts=[{"name": "t", "mountPath": "/t"}], priorityClassName="corp-critical", adminIDs=["spiffe://corp.example/admin"], auditLogEnabled=True,
        service={"type": "LoadBalancer", "port": 443, "annotations": {"lb": "internal"}}, logLevel="debug", logFormat="json",
    ),
    "bundle-selected": part("spire-server", notifier={"k8sBundle": {"namespaceSelector": {"matchLabels": {"mesh": "on"}}}}),
    "bundle-everywhere": part("spire-server", notifier={"k8sBundle": {"namespaceSelector": {}, "clusterTrustBundle": {"enabled": False}}}),
    "bundle-signed": part("spire-server", notifier={"k8sBundle": {"namespace": "trust", "clusterTrustBundle": {"name": "roots", "signerName": "corp.example/mesh"}}}),
    "bundle-in-webhooks": part("spire-server", notifier={"k8sBundle": {"caBundles": {"enabled": True}}}),
    "bundle-off": part("spire-server", notifier={"k8sBundle": {"enabled": False}}),
    "agent-pod-network": part("spire-agent", hostNetwork=False),
    "agent-pod-network-url": part("spire-agent", hostNetwork=False, trustBundleURL="https://spire.corp.example:8443/bundle"),
    "agent-host-cert": part("spire-agent", workloadAttestors={"k8s": {"verification": {"type": "hostCert"}}}),
    "agent-url": part("spire-agent", trustBundleURL="https://spire.corp.example/bundle", trustBundleFormat="spiffe"),
    "agent-host-bundle": part("spire-agent", trustBundleHostPath="/etc/spire/bundle.pem"),
    "agent-keeps": part("spire-agent", persistence={"type": "hostPath"}, availabilityTarget="24h", experimental={"syncInterval": "1s"}),
    "agent-sds": part("spire-agent", sds={"defaultSVIDName": "own", "disableSPIFFECertValidation": True}, workloadAttestors={"unix": {"enabled": True}}),
    "agent-no-sds": part("spire-agent", sds={"enabled": False}, keyManager={"memory": {"enabled": True}}),
    "agent-proxy-rbac": part("spire-agent", kubeletAuthorization="nodes/proxy", hostAliases=[{"ip": "10.0.0.1", "hostnames": ["spire"]}]),
    "injector-affinity": part("injector", affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["system"]}]}]}}}),
    "policies-open-agents": {"spire-agent": {"hostNetwork": False}, **prometheus()},
    "csi-other": part("spiffe-csi-driver", pluginName="id.corp.example", kubeletPath="/var/snap/kubelet", csiDriverLabels={"a": "b"}),
    "injector-one": part("injector", replicaCount=1, mode="envoy", strict=True),
    "injector-five": part("injector", replicaCount=5, podDisruptionBudget={"maxUnavailable": "40%"}, webhook={"failurePolicy": "Ignore", "ignoreNamespaces": ["dev"]}),
    "policies-off": {"networkPolicy": {"enabled": False}},
    "policies-narrow": {
        **prometheus(),
        "networkPolicy": {
            "apiServerPorts": [16443],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "serverFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "serverExtraEgress": [{"ports": [{"port": 5432}]}],
        },
    },
}

# Cases that are rendered for every version of Kubernetes.
EVERY_VERSION = {
    "default", "recommended", "openshift", "everything-watched", "pod-monitor", "server-store-pvc", "injector-five", "bundle-signed",
    "agent-pod-network", "agent-proxy-rbac", "controller-own", "policies-narrow",
}
# case: what else must hold of its objects.
EXPECTED = {
    "registry": lambda found: [*pods.hlm_12_every_image_is_of(found, "registry.corp.example:5000", None, "pull")],
    "registry-and-digest": lambda found: [*pods.hlm_12_every_image_is_of(found, "registry.corp.example:5000", "sha256:" + "ab" * 32, "pull")],
    "images-of-parts": lambda found: [*pods.hlm_12_each_part_may_have_an_image_of_its_own(found, {
        "spire-server": ("s.example/signet@sha256:" + "a1" * 32, "s"), "spire-controller-manager": ("s.example/signet:a2", "s"),
        "spire-agent": ("a.example/signet:a3", "a"), "spiffe-csi-driver": ("c/signet@sha256:" + "a4" * 32, "c"),
        "signet-injector": ("i.example/signet@sha256:" + "a5" * 32, "i"), "svid": ("a.example/signet:a3", "a"),
    })],
    "policies-narrow": lambda found: [*network.hlm_06_figures_are_for(found, {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}})],
    "from-spires-charts": lambda found: [*pods.hlm_12_every_image_is_of(found, "registry.corp.example", None, "registry"), *names.hlm_03_a_migrated_file_means_what_it_meant(found)],
    "openshift": lambda found: [*pods.hlm_14_openshift_has_leave(found)],
    "recommended": lambda found: [*pods.hlm_05_there_are_namespaces(found)],
}

# name: (values, what the message must say)
BAD = {
    "unknown key": ({"spire-server": {"replicas": 2}}, "replicas"),
    "unknown top key": ({"spire-servr": {}}, "spire-servr"),
    "wrong type": ({"spire-server": {"replicaCount": "two"}}, "replicaCount"),
    "wrong trust domain": (spire(trustDomain="spiffe://corp.example"), "trustDomain"),
    "wrong duration": ({"spire-server": {"caTTL": "1 day"}}, "caTTL"),
    "wrong port": ({"spire-agent": {"healthChecks": {"port": 70000}}}, "port"),
    "wrong mode": ({"injector": {"mode": "sidecar"}}, "mode"),
    "wrong selector": (part("spire-server", notifier={"k8sBundle": {"namespaceSelector": {"matchLabel": {"a": "b"}}}}), "matchLabel"),
    "wrong signer": (part("spire-server", notifier={"k8sBundle": {"clusterTrustBundle": {"signerName": "mesh"}}}), "signerName"),
    "wrong digest": ({"image": {"digest": "ab12"}}, "digest"),
    "wrong key type": ({"spire-server": {"caKeyType": "ed25519"}}, "caKeyType"),
    "wrong share": ({"injector": {"podDisruptionBudget": {"maxUnavailable": "some"}}}, "maxUnavailable"),
    "agents with certificates": ({"spire-agent": {"nodeAttestor": {"x509POP": {"enabled": True}}}}, "spire-agent.nodeAttestor.x509POP.enabled: the chart gives"),
    "nested": ({"global": {"spire": {"upstreamServerAddress": "root.corp.example"}}}, "global.spire.upstreamServerAddress: nested servers"),
    "strict, everything at once": (
        {"global": {"spire": {"strictMode": True}}, "image": {"tag": "latest"}, "spire-server": {"persistence": {"type": "emptyDir"}, "replicaCount": 2}},
        ["global.spire.trustDomain: strictMode", "global.spire.clusterName: strictMode", "image.tag: strictMode", "persistence.type: strictMode", "spire-server.replicaCount: 2"],
    ),
    "strict, no effect": ({**spire(strictMode=True), "spire-server": {"ingress": {"enabled": True}}}, "spire-server.ingress.enabled: no effect"),
    "strict, no names": ({"global": {"spire": {"strictMode": True}}}, "global.spire.trustDomain: strictMode wants"),
    "strict, example": (spire(strictMode=True, trustDomain="example.org"), "global.spire.trustDomain"),
    "strict, empty dir": ({**spire(strictMode=True), "spire-server": {"persistence": {"type": "emptyDir"}}}, "spire-server.persistence.type"),
    "strict, replicas": ({**spire(strictMode=True), "spire-server": {"replicaCount": 3}}, "replicas need a shared database"),
    "strict by recommendation": ({"global": {"spire": {"recommendations": {"enabled": True}}}}, "global.spire.clusterName: strictMode"),
    "postgres": ({"spire-server": {"dataStore": {"sql": {"databaseType": "postgres"}}}}, "use sqlite3"),
    "upstream": ({"spire-server": {"upstreamAuthority": {"vault": {"enabled": True}}}}, "signs its own authorities"),
    "upstream of a guide": (
        {"spire-server": {"upstreamAuthority": {"awsSecretsManager": {"enabled": True, "keyName": "spire-root-key"}}}},
        "signs its own authorities",
    ),
    "federation": ({"spire-server": {"federation": {"enabled": True}}}, "no bundle endpoint"),
    "kms": ({"spire-server": {"keyManager": {"awsKMS": {"enabled": True}}}}, "keyManager.disk"),
    "delegates": ({"spire-agent": {"authorizedDelegates": ["spiffe://corp.example/x"]}}, "Delegated Identity"),
    "two monitors": (prometheus(podMonitor={"enabled": True}, serviceMonitor={"enabled": True}), "enable one"),
    "monitor of nothing": ({"global": {"telemetry": {"prometheus": {"podMonitor": {"enabled": True}}}}}, "a monitor without figures"),
    "SPIRE's image": ({"spire-server": {"image": {"repository": "spiffe/spire-server"}}}, "the chart starts `signet`"),
    "everything off": (
        {"spire-server": {"enabled": False}, "spire-agent": {"enabled": False}, "spiffe-csi-driver": {"enabled": False}, "injector": {"enabled": False}},
        "everything is off",
    ),
    "other socket": ({"spiffe-csi-driver": {"agentSocketPath": "/run/x/a.sock"}}, "spiffe-csi-driver.agentSocketPath"),
    "entry without selectors": (
        controller(identities={"clusterStaticEntries": {"x": {"spiffeID": "spiffe://corp.example/x", "parentID": "spiffe://corp.example/y"}}}),
        "selectors",
    ),
    "no attestor": ({"spire-server": {"nodeAttestor": {"k8sPSAT": {"enabled": False}}}}, "no attestor is on"),
}
