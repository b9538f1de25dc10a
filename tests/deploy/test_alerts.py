"""The alerts: each has a case that fires and one that does not, a severity, and a chapter of the runbook."""

import re
import subprocess

import pytest
import yaml

from deploy.checks.tools import ROOT, RULES, find_tool

FILES = [ROOT / "deploy" / "prometheus" / name for name in ("tests.yaml", "tests_of_days.yaml")]
CASES = [case for file in FILES for case in yaml.safe_load(file.read_text())["tests"]]
RUNBOOK = ROOT / "docs" / "runbook.md"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule]


def anchors(markdown: str) -> set[str]:
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)}


def test_every_alert_has_a_case_that_fires_and_one_that_does_not():
    cases = [case["name"] for case in CASES]
    for rule in ALERTS:
        assert any(name.startswith(f"{rule['alert']} fires: ") for name in cases), rule["alert"]
        assert any(name.startswith(f"{rule['alert']} is quiet: ") for name in cases), rule["alert"]


def test_a_case_that_fires_expects_its_alert():
    for case in CASES:
        alert, _, rest = case["name"].partition(" ")
        expected = [sample["labels"] for test in case["promql_expr_test"] for sample in test["exp_samples"]]
        assert (f'{{alertname="{alert}"}}' in expected) == rest.startswith("fires")


def test_every_alert_leads_to_a_chapter_of_the_runbook():
    chapters = anchors(RUNBOOK.read_text())
    for rule in ALERTS:
        place, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert place == "docs/runbook.md"
        assert anchor in chapters, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.skipif(find_tool("promtool") is None, reason="promtool is not installed (deploy/checks/tools.sh installs it)")
def test_promtool_agrees():
    said = subprocess.run([find_tool("promtool"), "test", "rules", *FILES], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
