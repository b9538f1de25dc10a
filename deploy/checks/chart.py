"""The chart: linted, rendered with every value set, each object held against Kubernetes' own schema (those of operators against a list of
fields, see `operators.py`) and checkov's rules; wrong values are refused with a sentence.

Run:  python -m deploy.checks.chart
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml

from deploy.checks import operators
from deploy.checks.findings import Findings
from deploy.checks.tools import CHART, ROOT, tool

VALUE_SETS = [*sorted((ROOT / "deploy/helm/values").glob("*.yaml")), CHART / "values-gpu.yaml"]
BAD_VALUES = sorted((ROOT / "deploy/helm/bad_values").glob("*.yaml"))
EXCEPTIONS = ROOT / "deploy/helm/checkov_exceptions.yaml"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def render(values: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`helm template` with one value file."""
    return run(tool("helm"), "template", "atspeed", CHART, "--namespace", "atspeed", "--values", values, *options)


def expected_complaint(values: Path) -> str:
    """The message of Helm that the first line of a wrong values file expects."""
    return values.read_text().splitlines()[0].removeprefix("# expect: ")


def validate(manifest: Path, findings: Findings) -> None:
    """Every object of Kubernetes' own against its schema, and every other against the fields that are known of it."""
    objects = [part for part in yaml.safe_load_all(manifest.read_text()) if part]
    said = run(tool("kubernetes-validate"), "--strict", manifest)
    passed = (said.stdout + said.stderr).count(" passed for resource ")
    own = sum(part["kind"] not in operators.KINDS for part in objects)
    findings.check(said.returncode == 0 and passed == own, f"{manifest.stem}: {passed} of {own} objects pass kubernetes-validate --strict")
    if said.returncode:
        print(said.stdout, said.stderr)
    foreign = [part for part in objects if part["kind"] in operators.KINDS]
    wrong = [f"{part['kind']} {complaint}" for part in foreign for complaint in operators.complaints(part)]
    if foreign:
        kinds = ", ".join(sorted(part["kind"] for part in foreign))
        findings.check(not wrong, f"{manifest.stem}: nothing but known fields (deploy/checks/operators.yaml) in {kinds}")
    for complaint in wrong:
        print(f"      {complaint}")


def checkov_findings(manifest: Path) -> Iterator[tuple[str, str, str]]:
    """(check, resource, name of the check) of all that checkov complains of."""
    said = run(tool("checkov"), "--framework", "kubernetes", "--skip-download", "--quiet", "--output", "json", "--file", manifest)
    report: dict[str, Any] = json.loads(said.stdout)
    for failed in report["results"]["failed_checks"]:
        yield failed["check_id"], failed["resource"], failed["check_name"]


def main() -> None:
    """Check the chart with every set of values; takes no options (minutes)."""
    findings = Findings()
    lint = run(tool("helm"), "lint", "--strict", CHART)
    findings.check(lint.returncode == 0, "helm lint --strict")
    exceptions = yaml.safe_load(EXCEPTIONS.read_text())
    unused = [dict(exception) for exception in exceptions]
    with tempfile.TemporaryDirectory() as folder:
        for values in VALUE_SETS:
            rendered = render(values)
            if not findings.check(rendered.returncode == 0, f"{values.stem}: helm template {rendered.stderr}".rstrip()):
                continue
            manifest = Path(folder, f"{values.stem}.yaml")
            manifest.write_text(rendered.stdout)
            validate(manifest, findings)
            excepted = 0
            for check, resource, name in checkov_findings(manifest):
                fitting = [rule for rule in exceptions if rule["check"] == check and rule.get("resource", resource) == resource]
                unused = [rule for rule in unused if rule not in fitting]
                excepted += bool(fitting)
                if not fitting:
                    findings.check(False, f"{values.stem}: checkov {check} {resource}: {name}")
            print(f"      {values.stem}: checkov is content but for {excepted} listed exceptions")
    for rule in unused:
        findings.check(False, f"nothing needs the exception {rule['check']}")
    for values in BAD_VALUES:
        refused = render(values)
        clear = refused.returncode != 0 and expected_complaint(values) in refused.stderr
        said = [line.strip() for line in refused.stderr.splitlines() if expected_complaint(values) in line] or ["not at all"]
        findings.check(clear, f"{values.name} is refused: {said[-1]}")
    findings.end()


if __name__ == "__main__":
    typer.run(main)
