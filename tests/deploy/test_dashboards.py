"""The dashboards: what is committed is what the code makes, and they ask only for metrics that the server has."""

import json
import re
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from deploy.checks.monitoring import VARIABLES, queries
from deploy.checks.tools import DASHBOARDS, RULES, find_tool
from deploy.grafana.__main__ import rendered
from server.metrics.registry import Metrics

# Named by the recording rules.
_METRIC = re.compile(r"\batspeed_\w+")


def exposed() -> set[str]:
    """Every name that a query may use: also of series that come only with the first observation."""
    names: set[str] = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def test_the_committed_dashboards_are_what_the_code_makes():
    committed = {path.stem: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert committed == rendered(), "run python -m deploy.grafana"


@pytest.mark.parametrize("name", rendered())
def test_every_query_can_be_parsed_and_names_metrics_of_the_server(name: str):
    asked = list(queries(DASHBOARDS / f"{name}.json"))
    assert asked
    for title, expression in asked:
        promql_parser.parse(expression)
        used = set(_METRIC.findall(expression))
        assert used, title
        assert used <= exposed(), title


@pytest.mark.parametrize("name", rendered())
def test_every_panel_says_how_to_read_it(name: str):
    page = json.loads((DASHBOARDS / f"{name}.json").read_text())
    panels = [panel for panel in page["panels"] if panel["type"] != "row"]
    assert panels
    assert all(panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    assert len({panel["title"] for panel in panels}) == len(panels)


def test_the_rules_name_metrics_of_the_server():
    used = set(_METRIC.findall("\n".join(line for line in RULES.read_text().splitlines() if not line.lstrip().startswith("#"))))
    assert used <= exposed()


needs_promtool = pytest.mark.skipif(find_tool("promtool") is None, reason="promtool is not installed (deploy/checks/tools.sh installs it)")


def check_panels(folder: Path, dashboard: str, counted: dict[str, int], shown: dict[str, tuple[str, float]]) -> None:
    """Check what panels show, labels and value, of counters that grow by so much a second."""
    interval = VARIABLES["$__rate_interval"]
    asked = [(title, expression.replace(f"[{interval}]", "[5m]")) for title, expression in queries(DASHBOARDS / f"{dashboard}.json")]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"0+{60 * step}x30"} for name, step in counted.items()],
        "promql_expr_test": [
            {"expr": expression, "eval_time": "20m", "exp_samples": [{"labels": shown[title][0], "value": shown[title][1]}]}
            for title, expression in asked
            if title in shown
        ],
    }
    assert len(case["promql_expr_test"]) == len(shown)
    cases = folder / "tests.yaml"
    cases.write_text(yaml.safe_dump({"rule_files": [], "tests": [case]}))
    said = subprocess.run([find_tool("promtool"), "test", "rules", cases], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


@needs_promtool
def test_drafts_that_were_never_accepted_save_nothing(tmp_path: Path):
    """Such a server has no series of accepted steps; the panels show 0, and a speed-up below 1, for drafting takes time."""
    counted = {'atspeed_target_forwards_total{plan="beam"}': 4, "atspeed_target_seconds_sum": 3, "atspeed_draft_seconds_sum": 1}
    shown = {"Steps saved": ("{}", 0), "Steps saved by plan": ('{plan="beam"}', 0), "Speed-up over plain beam search": ("{}", 0.75)}
    check_panels(tmp_path, "speculation", counted, shown)


@needs_promtool
@pytest.mark.parametrize("made", [{}, {'atspeed_plan_decisions_total{plan="beam"}': 6}], ids=["only popular", "both"])
def test_shares_of_lists_are_of_popular_ones_too(tmp_path: Path, made: dict[str, int]):
    """They are counted among the short ones and those with filters, and have no plan."""
    lists = 4 + sum(made.values())
    counted = made | {
        'atspeed_popular_lists_total{reason="unknown-user"}': 3,
        'atspeed_popular_lists_total{reason="empty-history"}': 1,
        "atspeed_short_lists_total": 4,
        'atspeed_filtered_requests_total{filter="named"}': lists,
    }
    check_panels(tmp_path, "health", counted, {"Short lists": ("{}", 4 / lists), "Filters": ('{filter="named"}', 1.0)})
