"""That the checks find anything: mistakes planted into what the chart renders, each with the check that has to find it."""

import copy

import figures
import monitors
import names
import network
import pods
import policy
import rights
import schemas
import upgrade

# Cases whose renderings the mistakes are planted into.
BASES = {"default", "openshift", "recommended", "policies-open-agents", "agent-pod-network-url", "registry-and-digest", "everything-watched", "pod-monitor", "from-spires-charts"}


def one(documents, kind, part):
    """The object of this kind whose name ends so."""
    return next(document for document in documents if document["kind"] == kind and document["metadata"]["name"].endswith(part))


def pod(documents, kind, part):
    return one(documents, kind, part)["spec"]["template"]["spec"]


def first(documents, kind, part):
    return pod(documents, kind, part)["containers"][0]


def rule(kind="ClusterRole", part="injector", **more):
    """Adds a rule to a role, or a Role with it where there is none."""
    def plant(documents):
        added = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **more}
        one(documents, kind, part)["rules"].append(added)
    return plant


def opened(part, **more):
    return lambda documents: one(documents, "NetworkPolicy", part)["spec"]["ingress"].append(more)


def without(documents, kind, part):
    documents.remove(one(documents, kind, part))


def moved(key, value):
    def plant(documents):
        one(documents, "Deployment", "injector")["spec"][key] = value
    return plant


INJECTOR, SERVER, AGENT, DRIVER = ("Deployment", "injector"), ("StatefulSet", "server"), ("DaemonSet", "agent"), ("DaemonSet", "driver")
RESTRICTED = pods.hlm_05_only_programs_of_the_node_go_beyond_restricted
LEVELS = pods.hlm_05_namespaces_ask_for_the_level_that_their_pods_need
PORTS, WAYS = network.hlm_06_only_ports_that_are_asked_are_open, network.hlm_06_pods_go_where_they_need_to
ONE_POLICY, AGENTS = network.hlm_06_every_pod_has_one_policy_or_the_nodes_network, network.hlm_06_agents_alone_ask_the_server
APART, GRANTS = pods.hlm_07_replicas_are_kept_apart_and_a_drain_takes_one, rights.hlm_11_roles_grant_what_the_table_says
MONITORS = monitors.hlm_08_monitors_ask_every_program_once
IMAGES = pods.hlm_12_images_have_a_version_or_a_digest
LINUX, LEAVE = pods.hlm_14_pods_are_for_linux, pods.hlm_14_openshift_gives_leave_to_programs_of_the_node_alone


def every_image(documents):
    return pods.hlm_12_every_image_is_of(documents, "registry.corp.example:5000", "sha256:" + "ab" * 32, "pull")


# what, case, check, mistake
ALL = [
    ("a hook", "default", policy.hlm_04_no_hooks, lambda ds: ds[0]["metadata"].update(annotations={"helm.sh/hook": "pre-install"})),
    ("a test that is a hook of an install too", "default", policy.hlm_04_no_hooks, lambda ds: one(ds, "Pod", "test")["metadata"]["annotations"].update({"helm.sh/hook": "test,post-install"})),
    ("root", "default", RESTRICTED, lambda ds: first(ds, *INJECTOR)["securityContext"].update(runAsUser=0)),
    ("no runAsNonRoot", "default", RESTRICTED, lambda ds: pod(ds, *SERVER)["securityContext"].pop("runAsNonRoot")),
    ("no seccomp", "default", RESTRICTED, lambda ds: pod(ds, *SERVER)["securityContext"].pop("seccompProfile")),
    ("escalation", "default", RESTRICTED, lambda ds: pod(ds, *SERVER)["containers"][1]["securityContext"].pop("allowPrivilegeEscalation")),
    ("a capability", "default", RESTRICTED, lambda ds: first(ds, *AGENT)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"])),
    ("a folder of the node", "default", RESTRICTED, lambda ds: pod(ds, *INJECTOR)["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ("the node's processes", "default", RESTRICTED, lambda ds: pod(ds, *DRIVER).update(hostPID=True)),
    ("a privileged agent", "default", RESTRICTED, lambda ds: first(ds, *AGENT)["securityContext"].update(privileged=True)),
    ("a root file system", "default", RESTRICTED, lambda ds: first(ds, *DRIVER)["securityContext"].pop("readOnlyRootFilesystem")),
    ("a program in the wrong namespace", "recommended", LEVELS, lambda ds: one(ds, *AGENT)["metadata"].update(namespace="spire-server")),
    ("a namespace of another level", "recommended", LEVELS, lambda ds: one(ds, "Namespace", "server")["metadata"]["labels"].update({"pod-security.kubernetes.io/enforce": "baseline"})),
    ("a namespace that only warns", "recommended", LEVELS, lambda ds: one(ds, "Namespace", "server")["metadata"]["labels"].pop("pod-security.kubernetes.io/enforce")),
    ("no policy", "default", ONE_POLICY, lambda ds: without(ds, "NetworkPolicy", "injector")),
    ("a policy for nobody", "default", ONE_POLICY, lambda ds: one(ds, "NetworkPolicy", "injector")["spec"]["podSelector"]["matchLabels"].update(x="y")),
    ("one way open", "default", ONE_POLICY, lambda ds: one(ds, "NetworkPolicy", "server")["spec"].update(policyTypes=["Ingress"])),
    ("health for anybody", "default", PORTS, opened("server", ports=[{"port": "health"}])),
    ("every port", "default", PORTS, opened("injector", **{"from": []})),
    ("a port that nobody has", "default", PORTS, opened("driver", ports=[{"port": "metrics"}])),
    ("a webhook for some", "default", PORTS, lambda ds: one(ds, "NetworkPolicy", "injector")["spec"]["ingress"][0].update({"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]})),
    ("the server for anybody", "policies-open-agents", AGENTS, opened("server", ports=[{"port": "grpc"}])),
    ("the server for nobody", "policies-open-agents", AGENTS, lambda ds: one(ds, "NetworkPolicy", "server")["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"].update({"kubernetes.io/metadata.name": "x"})),
    ("a way for the driver", "default", WAYS, lambda ds: one(ds, "NetworkPolicy", "driver")["spec"].update(egress=[{"ports": [{"port": 443}]}])),
    ("no names", "default", WAYS, lambda ds: one(ds, "NetworkPolicy", "server")["spec"]["egress"].pop(0)),
    ("every way", "default", WAYS, lambda ds: one(ds, "NetworkPolicy", "injector")["spec"]["egress"].append({})),
    ("no API server", "default", WAYS, lambda ds: one(ds, "NetworkPolicy", "injector")["spec"]["egress"].pop(1)),
    ("no bundle", "agent-pod-network-url", WAYS, lambda ds: one(ds, "NetworkPolicy", "agent")["spec"]["egress"][1]["ports"].remove({"port": 8443, "protocol": "TCP"})),
    ("no budget", "default", APART, lambda ds: without(ds, "PodDisruptionBudget", "injector")),
    ("a budget for one", "default", APART, moved("replicas", 1)),
    ("a budget that lets nobody go", "default", APART, lambda ds: one(ds, "PodDisruptionBudget", "injector")["spec"].update(maxUnavailable=0)),
    ("a budget for others", "default", APART, lambda ds: one(ds, "PodDisruptionBudget", "injector")["spec"]["selector"]["matchLabels"].update(x="y")),
    ("no zones", "default", APART, lambda ds: pod(ds, *INJECTOR)["topologySpreadConstraints"].pop(1)),
    ("apart from others", "default", APART, lambda ds: pod(ds, *INJECTOR)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]["labelSelector"]["matchLabels"].update(x="y")),
    ("no anti-affinity", "default", APART, lambda ds: pod(ds, *INJECTOR).pop("affinity")),
    ("no priority", "default", APART, lambda ds: pod(ds, *AGENT).pop("priorityClassName")),
    ("a monitor of no port", "everything-watched", MONITORS, lambda ds: one(ds, "ServiceMonitor", "agent")["spec"]["endpoints"][0].update(port="figures")),
    ("a monitor of another namespace", "pod-monitor", MONITORS, lambda ds: one(ds, "PodMonitor", "injector")["spec"]["namespaceSelector"].update(matchNames=["x"])),
    ("a program without a monitor", "pod-monitor", MONITORS, lambda ds: without(ds, "PodMonitor", "driver")),
    ("a program asked twice", "pod-monitor", MONITORS, lambda ds: ds.append(one(ds, "PodMonitor", "agent"))),
    ("a Service that leads nowhere", "everything-watched", MONITORS, lambda ds: one(ds, "Service", "agent-metrics")["spec"]["selector"].update(x="y")),
    ("a value that is lost", "from-spires-charts", names.hlm_03_a_migrated_file_means_what_it_meant, lambda ds: replaced(one(ds, "ConfigMap", "server")["data"], "server.conf", "72h", "24h")),
    ("a wildcard", "default", GRANTS, rule(apiGroups=["*"])),
    ("all verbs", "default", GRANTS, rule(verbs=["*"])),
    ("secrets", "default", GRANTS, rule(part="controller", resources=["secrets"], verbs=["list"])),
    ("writes", "default", GRANTS, rule(part="controller", verbs=["delete"])),
    ("config maps of any name", "default", GRANTS, rule(part="controller", resources=["configmaps"], verbs=["get", "create"])),
    ("webhooks of any name", "default", GRANTS, rule(apiGroups=["admissionregistration.k8s.io"], resources=["mutatingwebhookconfigurations"], verbs=["patch"])),
    ("pods by a role of a namespace", "default", GRANTS, rule("Role", "controller")),
    ("a bundle of another name", "default", rights.hlm_11_bundles_are_granted_by_name, lambda ds: one(ds, "Role", "bundle")["rules"][0].update(resourceNames=["x"])),
    (
        "leave to change every API", "default", rights.hlm_11_ca_bundles_of_others_are_granted_when_asked_for,
        rule(part="controller", apiGroups=["apiregistration.k8s.io"], resources=["apiservices"], verbs=["patch"]),
    ),
    ("an account that is missing", "default", rights.whoever_is_named_is_there, lambda ds: without(ds, "ServiceAccount", "agent")),
    ("latest", "default", IMAGES, lambda ds: first(ds, *AGENT).update(image="signet:latest")),
    ("no version", "default", IMAGES, lambda ds: first(ds, *AGENT).update(image="registry:5000/signet")),
    ("another registry", "registry-and-digest", every_image, lambda ds: one(ds, "Pod", "test")["spec"]["containers"][0].update(image="signet@sha256:" + "ab" * 32)),
    ("another digest", "registry-and-digest", every_image, lambda ds: first(ds, *DRIVER).update(image="registry.corp.example:5000/signet@sha256:" + "ac" * 32)),
    ("no pull secret", "registry-and-digest", every_image, lambda ds: pod(ds, *AGENT).pop("imagePullSecrets")),
    ("Envoy of another registry", "registry-and-digest", every_image, lambda ds: replaced(one(ds, "ConfigMap", "injector")["data"], "injector.yaml", "5000/envoyproxy", "5001/envoyproxy")),
    ("Windows", "default", LINUX, lambda ds: pod(ds, *INJECTOR).pop("nodeSelector")),
    ("leave for others", "openshift", LEAVE, lambda ds: one(ds, "RoleBinding", "agent-scc")["subjects"][0].update(name="signet-injector")),
    ("a user on OpenShift", "openshift", LEAVE, lambda ds: pod(ds, *INJECTOR)["securityContext"].update(runAsUser=65532)),
    ("a caBundle", "default", policy.webhooks_hold_up_nobody_else, lambda ds: one(ds, "MutatingWebhookConfiguration", "injector")["webhooks"][0]["clientConfig"].update(caBundle="eA==")),
    ("kube-system", "default", policy.webhooks_hold_up_nobody_else, lambda ds: one(ds, "MutatingWebhookConfiguration", "injector")["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]["values"].remove("kube-system")),
    ("an object twice", "default", policy.objects_are_there_once, lambda ds: ds.append(ds[0])),
]
# what, case, mistake: for the schemas of Kubernetes and of custom resources.
WRONG = [
    ("unknown field", "default", lambda ds: one(ds, "ClusterRole", "injector").update(rulez=[])),
    ("wrong type", "default", lambda ds: one(ds, "ClusterRole", "injector")["rules"][0].update(verbs="get")),
    ("unknown kind", "default", lambda ds: one(ds, "ClusterRole", "injector").update(kind="ClusterRule")),
    ("field of a ClusterSPIFFEID", "default", lambda ds: one(ds, "ClusterSPIFFEID", "default")["spec"].update(spiffeIDTemplat="x")),
    ("field of a ServiceMonitor", "everything-watched", lambda ds: one(ds, "ServiceMonitor", "server")["spec"]["endpoints"][0].update(prot="x")),
    ("duration of a ServiceMonitor", "everything-watched", lambda ds: one(ds, "ServiceMonitor", "server")["spec"]["endpoints"][0].update(interval="soon")),
    ("field of a PodMonitor", "pod-monitor", lambda ds: one(ds, "PodMonitor", "agent")["spec"].update(podMetricsEndpoint=[])),
    ("a rule's duration", "everything-watched", lambda ds: one(ds, "PrometheusRule", "signet")["spec"]["groups"][0]["rules"][1].update({"for": "5 minutes"})),
    ("a rule without expression", "everything-watched", lambda ds: one(ds, "PrometheusRule", "signet")["spec"]["groups"][0]["rules"][1].pop("expr")),
]
RULES = "groups: [{name: a, rules: [{alert: A, expr: %s, annotations: {summary: %s}}]}]"


def replaced(data, key, old, new):
    data[key] = data[key].replace(old, new)


def missed(bases, customs, root, promcheck):
    """What nobody finds."""
    for what, case, check, plant in ALL:
        if found := list(check(bases[case])):
            yield f"{what}: found where nothing was planted: {found}"
        changed = copy.deepcopy(bases[case])
        plant(changed)
        if not list(check(changed)):
            yield f"nobody finds: {what}"
    for what, case, plant in WRONG:
        changed = copy.deepcopy(bases[case])
        plant(changed)
        if not any(schemas.problems(document, customs) for document in changed):
            yield f"nobody finds: {what}"
    old = {"kind": "Deployment", "metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}}
    new = {**old, "spec": {"selector": {"matchLabels": {"a": "c"}}}}
    for what, later in (("a changed selector", [new]), ("a removed object", [])):
        if not list(upgrade.problems(upgrade.fixed([old]), upgrade.fixed(later))):
            yield f"nobody finds: {what}"
    for what, expression, summary, panels in [
        ("PromQL that is none", "sum by (up", "x", {}),
        ("a function that is none", "rat(up[5m])", "x", {}),
        ("a rate of an instant", "rate(up)", "x", {}),
        ("a template that is none", "up == 0", "'{{ $labels.node'", {}),
        ("a figure that nobody has", "spire_server_no_such_thing > 0", "x", {}),
        ("a figure of others", "node_load1 > 0", "x", {}),
        ("a panel's PromQL", "up == 0", "x", {"panel": "sum(rate(up[5m])"}),
        ("a panel's figure", "up == 0", "x", {"panel": "spire_agent_no_such_thing"}),
    ]:
        if not list(figures.hlm_08_rules_and_panels_are_promql_over_figures_that_there_are(root, promcheck, RULES % (expression, summary), panels)):
            yield f"nobody finds: {what}"
    if len(list(figures.hlm_08_the_least_alerts_are_there(RULES % ("up", "x")))) != 4:
        yield "nobody finds: alerts that are missing"
    if not list(names.hlm_03_names_of_spires_charts_are_taken_and_explained(root, "spire-server.noSuchValue")):
        yield "nobody finds: a name that is not taken"
