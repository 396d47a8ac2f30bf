"""Renders the charts with every helm over many values, and looks at what comes out.

    check.py --helm HELM [--helm HELM …] [--signet SIGNET] [--released VERSION]

Prints one line per finding and a count at the end; ends with 1 when there was a finding.
"""

import argparse
import concurrent.futures
import hashlib
import json
import pathlib
import shutil
import subprocess
import tempfile

import yaml

import cases
import figures
import policy
import schemas
import upgrade

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "signet"
CRDS = ROOT / "helm" / "signet-crds"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Releases whose name decides what is in them.
RELEASES = {"seed-server-guide": "spire-server", "seed-agent-guide": "spire-agent"}


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)


def template(helm, case, *more, chart=CHART):
    release = RELEASES.get(case.stem, "signet")
    return run(helm, "template", release, chart, "--namespace", "spire-system", "--kube-version", "1.34.0", "--values", case, *more)


def documents(text):
    return [document for document in yaml.load_all(text, Loader=LOADER) if document]


class Checks:
    def __init__(self, helms, signet, folder):
        self.helms = helms
        self.signet = signet
        self.folder = folder
        self.findings = []
        self.counts = {"renderings": 0, "documents": 0, "configurations": 0, "refusals": 0, "upgrades": 0}
        self.seen = {}
        self.confs = {}
        crds = [yaml.load(path.read_text(), Loader=LOADER) for path in sorted((ROOT / "manifests" / "crds").glob("*.yaml"))]
        self.customs = schemas.custom(crds)

    def finding(self, where, what):
        self.findings.append(f"{where}: {what}")

    def good(self, case):
        """Lints and renders one case with every helm; all must give the same objects, twice the same bytes."""
        rendered = []
        for helm in self.helms:
            version = helm.parent.name
            linted = run(helm, "lint", "--strict", CHART, "--values", case)
            if linted.returncode:
                self.finding(f"{case.stem} ({version})", linted.stdout + linted.stderr)
            first, second = template(helm, case), template(helm, case)
            if first.returncode:
                self.finding(f"{case.stem} ({version})", first.stderr)
                continue
            if first.stdout != second.stdout:
                self.finding(f"{case.stem} ({version})", "two renderings differ")
            rendered.append(first.stdout)
            self.counts["renderings"] += 2
        return rendered

    def looked_at(self, case, rendered):
        several = [documents(text) for text in rendered]
        if not several:
            return
        for other in several[1:]:
            if sorted(map(json.dumps, other)) != sorted(map(json.dumps, several[0])):
                self.finding(case.stem, "helms do not agree")
        for problem in policy.problems(several[0]):
            self.finding(case.stem, problem)
        for document in several[0]:
            self.counts["documents"] += 1
            self.document(case, document)

    def document(self, case, document):
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
        if digest not in self.seen:
            self.seen[digest] = schemas.problems(document, self.customs)
        for problem in self.seen[digest]:
            self.finding(case.stem, f"{policy.name(document)}: {problem}")
        if document["kind"] == "ConfigMap":
            for key, text in document["data"].items():
                self.confs.setdefault((key, text), case.stem)

    def refused(self, name, values, expected):
        case = self.folder / "bad.yaml"
        case.write_text(yaml.safe_dump(values))
        for helm in self.helms:
            answer = template(helm, case)
            self.counts["refusals"] += 1
            if answer.returncode == 0:
                self.finding(name, f"{helm.parent.name} renders it")
            elif expected not in answer.stderr:
                self.finding(name, f"{helm.parent.name} does not say {expected!r}: {answer.stderr}")

    def configurations(self):
        """What the programs themselves say of their configurations."""
        programs = {
            "server.conf": ("server", "validate", "-config"),
            "agent.conf": ("agent", "validate", "-config"),
            "controller.yaml": ("k8s", "controller", "--validate", "--config"),
            "injector.yaml": ("k8s", "injector", "--validate", "--config"),
        }
        for (key, text), case in self.confs.items():
            if self.signet is None or key not in programs:
                continue
            path = self.folder / key
            path.write_text(text)
            answer = run(self.signet, *programs[key], path)
            self.counts["configurations"] += 1
            if answer.returncode:
                self.finding(case, f"{key}: {answer.stderr}")

    def upgrades(self, files):
        """From each release to this chart, and from this chart to itself under a later number."""
        later = self.folder / "later"
        shutil.copytree(CHART, later)
        metadata = yaml.safe_load((later / "Chart.yaml").read_text())
        (later / "Chart.yaml").write_text(yaml.safe_dump({**metadata, "version": "99.9.9", "appVersion": "99.9.9"}))
        renderings = {}
        for case in (case for case in files if case.stem in upgrade.KEPT):
            now, then = (documents(template(self.helms[0], case, chart=chart).stdout) for chart in (CHART, later))
            renderings[case.stem] = now
            self.counts["upgrades"] += 1
            for problem in upgrade.problems(upgrade.fixed(now), upgrade.fixed(then)):
                self.finding(f"{case.stem} under a later number", problem)
        for version, cases_then in upgrade.released():
            for case, then in cases_then.items():
                self.counts["upgrades"] += 1
                for problem in upgrade.problems(then, upgrade.fixed(renderings.get(case, []))):
                    self.finding(f"{case} since {version}", problem)
        return renderings

    def crds(self):
        """The chart of the definitions holds those of manifests/crds, byte for byte."""
        ours = {path.name: path.read_bytes() for path in (CRDS / "files").glob("*.yaml")}
        source = {path.name: path.read_bytes() for path in (ROOT / "manifests" / "crds").glob("*.yaml")}
        if ours != source:
            self.finding("signet-crds", "files/ is not manifests/crds; run `make manifests`")
        for helm in self.helms:
            linted = run(helm, "lint", "--strict", CRDS)
            rendered = run(helm, "template", "crds", CRDS)
            if linted.returncode or rendered.returncode:
                self.finding("signet-crds", linted.stdout + rendered.stderr)
            elif len(documents(rendered.stdout)) != len(source):
                self.finding("signet-crds", "not every definition is rendered")


    def controls(self):
        """That the checks find anything: objects that are wrong on purpose."""
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "wrong"}}
        for what, document, check in [
            ("unknown field", {**role, "rules": [], "rulez": []}, lambda one: schemas.problems(one, self.customs)),
            ("wrong type", {**role, "rules": [{"verbs": "get"}]}, lambda one: schemas.problems(one, self.customs)),
            ("unknown kind", {**role, "kind": "ClusterRule"}, lambda one: schemas.problems(one, self.customs)),
            (
                "custom resource",
                {"apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID", "metadata": {"name": "x"}, "spec": {"spiffeIDTemplat": "x"}},
                lambda one: schemas.problems(one, self.customs),
            ),
            ("wildcard", {**role, "rules": [{"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]}]}, lambda one: policy.problems([one])),
            ("secrets", {**role, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]}, lambda one: policy.problems([one])),
            ("writes", {**role, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}]}, lambda one: policy.problems([one])),
            (
                "config maps",
                {**role, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]}]},
                lambda one: policy.problems([one]),
            ),
            ("by name only", {
                **role, "metadata": {"name": "x", "labels": {"app.kubernetes.io/name": "signet-injector"}},
                "rules": [{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"], "verbs": ["patch"]}],
            }, lambda one: policy.problems([one])),
            ("role of a namespace", {**role, "kind": "Role", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}, lambda one: policy.problems([one])),
            ("hook", {**role, "rules": [], "metadata": {"name": "x", "annotations": {"helm.sh/hook": "pre-install"}}}, lambda one: policy.problems([one])),
        ]:
            if not check(document):
                self.finding("controls", f"nobody finds: {what}")
        old = {"kind": "Deployment", "metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}}
        new = {**old, "spec": {"selector": {"matchLabels": {"a": "c"}}}}
        for what, later in (("a changed selector", [new]), ("a removed object", [])):
            if not list(upgrade.problems(upgrade.fixed([old]), upgrade.fixed(later))):
                self.finding("controls", f"nobody finds: {what}")
        for server in (True, False):
            path = self.folder / "wrong.conf"
            path.write_text('{"server": {}}' if server else '{"agent": {}}')
            if self.signet and run(self.signet, "server" if server else "agent", "validate", "-config", path).returncode == 0:
                self.finding("controls", "a wrong configuration passes")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--helm", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--signet", type=pathlib.Path)
    parser.add_argument("--released", metavar="VERSION")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        checks = Checks(arguments.helm, arguments.signet, folder)
        files = sorted((CHART / "ci").glob("*.yaml"))
        for name, values in cases.GOOD.items():
            path = folder / f"{name}.yaml"
            path.write_text(yaml.safe_dump(values))
            files.append(path)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for case, rendered in zip(files, pool.map(checks.good, files)):
                checks.looked_at(case, rendered)
        for name, (values, expected) in cases.BAD.items():
            checks.refused(name, values, expected)
        checks.configurations()
        renderings = checks.upgrades(files)
        checks.crds()
        checks.controls()
        for problem in figures.problems(ROOT):
            checks.finding("figures", problem)
    if arguments.released:
        upgrade.write(arguments.released, renderings)
    for finding in checks.findings:
        print(finding)
    counts = ", ".join(f"{count} {what}" for what, count in checks.counts.items())
    print(f"{len(files)} values files, {len(cases.BAD)} wrong ones: {counts}; {len(checks.seen)} distinct objects against Kubernetes "
          f"{schemas.VERSIONS[0]} to {schemas.VERSIONS[-1]}; {len(checks.findings)} findings")
    raise SystemExit(bool(checks.findings))


if __name__ == "__main__":
    main()
