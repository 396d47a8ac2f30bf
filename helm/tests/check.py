"""Renders the charts with every helm over many values, and looks at what comes out.

    check.py --helm HELM [--helm HELM …] --monitoring FOLDER [--signet SIGNET] [--released VERSION] [--objects FILE]

Prints one line per finding and a count at the end; ends with 1 when there was a finding. FOLDER is what
e2e/tools/build-monitoring makes. With --objects, every distinct object that was rendered is written to FILE as JSON.
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
import controls
import figures
import names
import policy
import schemas
import upgrade

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "signet"
CRDS = ROOT / "helm" / "signet-crds"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Releases whose name decides what is in them.
RELEASES = {"seed-server-guide": "spire-server", "seed-agent-guide": "spire-agent"}
KUBERNETES = "1.34.0"


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)


def template(helm, case, *more, chart=CHART, kubernetes=KUBERNETES):
    release = RELEASES.get(case.stem, "signet")
    return run(helm, "template", release, chart, "--namespace", "spire-system", "--kube-version", kubernetes, "--values", case, *more)


def documents(text):
    return [document for document in yaml.load_all(text, Loader=LOADER) if document]


def read(path):
    return yaml.load(path.read_text(), Loader=LOADER)


class Checks:
    def __init__(self, arguments, folder):
        self.helms = arguments.helm
        self.signet = arguments.signet
        self.monitoring = arguments.monitoring
        self.folder = folder
        self.findings = []
        self.counts = {"renderings": 0, "documents": 0, "configurations": 0, "refusals": 0, "upgrades": 0}
        self.seen = {}
        self.objects = {}
        self.confs = {}
        definitions = sorted((ROOT / "manifests" / "crds").glob("*.yaml")) + sorted(
            self.monitoring / "crds" / f"monitoring.coreos.com_{kind}.yaml" for kind in ("podmonitors", "servicemonitors", "prometheusrules")
        )
        self.customs = schemas.custom(map(read, definitions))

    def finding(self, where, what):
        self.findings.append(f"{where}: {what}")

    def hlm_01_hlm_09_lints_and_renders(self, case):
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
        problems = policy.problems(several[0])
        if case.stem in cases.EXPECTED:
            problems += cases.EXPECTED[case.stem](several[0])
        for problem in problems:
            self.finding(case.stem, problem)
        for document in several[0]:
            self.counts["documents"] += 1
            self.document(case.stem, document, tuple(schemas.VERSIONS))

    def document(self, case, document, versions):
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
        self.objects[digest] = document
        if (digest, versions) not in self.seen:
            self.seen[digest, versions] = schemas.problems(document, self.customs, versions)
        for problem in self.seen[digest, versions]:
            self.finding(case, f"{policy.name(document)}: {problem}")
        if document["kind"] == "ConfigMap":
            for key, text in document["data"].items():
                self.confs.setdefault((key, text), case)

    def hlm_01_each_version_gets_what_it_has(self, version, files):
        """Rendered for a version of Kubernetes, held against its schemas; the agent's grant is the finest that it knows."""
        grant = "nodes/pods" if schemas.at_least(version, "1.33") else "nodes/proxy"
        for case in (case for case in files if case.stem in cases.EVERY_VERSION):
            rendered = template(self.helms[0], case, kubernetes=f"{version}.0")
            self.counts["renderings"] += 1
            where = f"{case.stem} for {version}"
            found = documents(rendered.stdout)
            for problem in [rendered.stderr] if rendered.returncode else policy.problems(found):
                self.finding(where, problem)
            granted = {resource for one in found if one["kind"] == "ClusterRole" for rule in one["rules"] for resource in rule["resources"] if resource.startswith("nodes/")}
            if granted != ({"nodes/proxy"} if case.stem == "agent-proxy-rbac" else {grant}):
                self.finding(where, f"the agent may get {granted}")
            for document in found:
                self.counts["documents"] += 1
                self.document(where, document, (version,))

    def hlm_01_what_is_too_old_is_refused(self, default):
        for helm in self.helms:
            for chart, version in ((CHART, "1.29.9"), (CRDS, "1.29.9")):
                answer = run(helm, "template", "signet", chart, "--kube-version", version)
                self.counts["refusals"] += 1
                if answer.returncode == 0 or "requires kubeVersion: >=1.30.0" not in answer.stderr:
                    self.finding(chart.name, f"{helm.parent.name} for Kubernetes {version}: {answer.stderr or 'rendered'}")

    def hlm_02_hlm_10_refused(self, case, values, expected):
        """What is wrong, unsupported, or left as it is under strictMode ends with a message that names it."""
        path = self.folder / "bad.yaml"
        path.write_text(yaml.safe_dump(values))
        for helm in self.helms:
            answer = template(helm, path)
            self.counts["refusals"] += 1
            if answer.returncode == 0:
                self.finding(case, f"{helm.parent.name} renders it")
            for words in [expected] if isinstance(expected, str) else expected:
                if answer.returncode and words not in answer.stderr:
                    self.finding(case, f"{helm.parent.name} does not say {words!r}: {answer.stderr}")

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
        for kind in ("server", "agent") if self.signet else ():
            path = self.folder / "wrong.conf"
            path.write_text(json.dumps({kind: {}}))
            if run(self.signet, kind, "validate", "-config", path).returncode == 0:
                self.finding("controls", "a wrong configuration passes")

    def hlm_04_upgrades(self, files):
        """From each release to this chart, and from this chart to itself under a later number."""
        later = self.folder / "later"
        shutil.copytree(CHART, later)
        metadata = read(later / "Chart.yaml")
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

    def hlm_04_definitions_are_a_chart_of_their_own(self):
        """The chart of the definitions holds those of manifests/crds, byte for byte."""
        ours = {path.name: path.read_bytes() for path in (CRDS / "files").glob("*.yaml")}
        source = {path.name: path.read_bytes() for path in (ROOT / "manifests" / "crds").glob("*.yaml")}
        if ours != source:
            self.finding("signet-crds", "files/ is not manifests/crds; run `make manifests`")
        for helm in self.helms:
            linted = run(helm, "lint", "--strict", CRDS)
            rendered = run(helm, "template", "crds", CRDS, "--kube-version", KUBERNETES)
            found = documents(rendered.stdout)
            if linted.returncode or rendered.returncode:
                self.finding("signet-crds", linted.stdout + rendered.stderr)
            elif len(found) != len(source):
                self.finding("signet-crds", "not every definition is rendered")
            for document in found:
                self.document("signet-crds", document, tuple(schemas.VERSIONS))

    def all_of(self, where, problems):
        for problem in problems:
            self.finding(where, problem)

    def everything(self):
        files = sorted((CHART / "ci").glob("*.yaml"))
        for case, values in cases.GOOD.items():
            path = self.folder / f"{case}.yaml"
            path.write_text(yaml.safe_dump(values))
            files.append(path)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for case, rendered in zip(files, pool.map(self.hlm_01_hlm_09_lints_and_renders, files)):
                self.looked_at(case, rendered)
            list(pool.map(lambda version: self.hlm_01_each_version_gets_what_it_has(version, files), schemas.VERSIONS))
        self.hlm_01_what_is_too_old_is_refused(files[0])
        for case, (values, expected) in cases.BAD.items():
            self.hlm_02_hlm_10_refused(case, values, expected)
        self.configurations()
        renderings = self.hlm_04_upgrades(files)
        self.hlm_04_definitions_are_a_chart_of_their_own()
        for chart in (CHART, CRDS):
            self.all_of("schema", names.hlm_02_schemas_are_closed(chart))
        self.all_of("names", names.hlm_03_names_of_spires_charts_are_taken_and_explained(ROOT))
        promcheck = self.monitoring / "promcheck"
        self.all_of("figures", figures.hlm_08_rules_and_panels_are_promql_over_figures_that_there_are(ROOT, promcheck))
        self.all_of("figures", figures.hlm_08_the_least_alerts_are_there((CHART / "files" / "alerts.yaml").read_text()))
        several = {case.stem: documents(template(self.helms[0], case).stdout) for case in files if case.stem in controls.BASES}
        self.all_of("controls", controls.missed(several, self.customs, ROOT, promcheck))
        return files, renderings


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--helm", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--monitoring", type=pathlib.Path, required=True)
    parser.add_argument("--signet", type=pathlib.Path)
    parser.add_argument("--released", metavar="VERSION")
    parser.add_argument("--objects", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(arguments, pathlib.Path(folder))
        files, renderings = checks.everything()
    if arguments.released:
        upgrade.write(arguments.released, renderings)
    if arguments.objects:
        arguments.objects.write_text(json.dumps(list(checks.objects.values())))
    for finding in checks.findings:
        print(finding)
    counts = ", ".join(f"{count} {what}" for what, count in checks.counts.items())
    print(f"{len(files)} values files, {len(cases.BAD)} wrong ones: {counts}; {len(checks.objects)} distinct objects against Kubernetes "
          f"{schemas.VERSIONS[0]} to {schemas.VERSIONS[-1]}; {len(controls.ALL)} planted mistakes; {len(checks.findings)} findings")
    raise SystemExit(bool(checks.findings))


if __name__ == "__main__":
    main()
