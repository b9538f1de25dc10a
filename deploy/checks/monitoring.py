"""Prometheus scrapes a real server under load: every panel of every dashboard has data, and an engine that is killed and can't come back
raises an alert that arrives in Alertmanager, and that ends when the engine is back.

Run:  python -m deploy.checks.monitoring
"""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import typer
import yaml

from benchmarks.endings import end_on_sigterm
from benchmarks.load.runs import LoadPlan, run_runs
from benchmarks.load.settings import LoadSettings
from benchmarks.load.small_model import make_model, served
from benchmarks.server_process import Program, ServerProcess, free_port
from deploy.checks.findings import Findings
from deploy.checks.processes import ask, wait_until
from deploy.checks.tools import DASHBOARDS, RULES, tool
from server.client import AtspeedClient, Denied, NotFound
from server.keys.file import add_key
from server.keys.key import Scope

LOAD_SECONDS = 40.0
RATE = 8.0
# The draft is the target itself: it proposes what the target accepts, so that panels of accepted steps have something to show.
FLAGS = ("--engine", "transformers", "--threads", "1", "--plan", "beam:20+children")
# What Grafana puts into queries, for a Prometheus that scrapes every second.
VARIABLES = {"$__rate_interval": "20s", "$instance": ".*"}


@contextmanager
def monitored(folder: Path, server_url: str) -> Iterator[tuple[str, str]]:
    """URLs of a Prometheus that scrapes the server, and of the Alertmanager that it tells."""
    prometheus_port, alertmanager_port = free_port(), free_port()
    (folder / "alertmanager.yml").write_text(
        yaml.safe_dump({"route": {"receiver": "nobody", "group_wait": "1s"}, "receivers": [{"name": "nobody"}]})
    )
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]},
        "scrape_configs": [{"job_name": "atspeed", "static_configs": [{"targets": [server_url.removeprefix("http://")]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    prometheus, alertmanager = f"http://127.0.0.1:{prometheus_port}", f"http://127.0.0.1:{alertmanager_port}"
    with ExitStack() as stack:
        command = [tool("prometheus-alertmanager"), f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alerts"]
        command += [f"--web.listen-address=127.0.0.1:{alertmanager_port}", "--cluster.listen-address="]
        stack.enter_context(Program(command, folder / "alertmanager.log", f"{alertmanager}/-/ready"))
        command = [tool("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
        command += [f"--web.listen-address=127.0.0.1:{prometheus_port}"]
        stack.enter_context(Program(command, folder / "prometheus.log", f"{prometheus}/-/ready"))
        yield prometheus, alertmanager


def put_under_load(url: str, key: str, weak: str) -> None:
    """Users as `atspeed-bench load` makes them, and what they do not do: filters, mistakes, short lists, what their key forbids."""
    settings = LoadSettings(rate=RATE, seconds=LOAD_SECONDS / 2, timeouts_ms=(2000, 2000))
    plan = LoadPlan(url=url, rates=[RATE], settings=settings, users=40)
    run_runs(plan)
    with AtspeedClient(url, key=weak, trust_env=False) as client, suppress(Denied):
        client.history("nobody")
    with AtspeedClient(url, key=key, trust_env=False) as client:
        items = [line.item_id for line in client.items(limit=50).items]
        for _ in range(5):
            client.recommend(history=items[:5], k=5, exclude=items[5:9], exclude_history=True, deadline=5)
            with suppress(NotFound):
                client.history("nobody")
            client.recommend_many([{"history": items[:3], "k": 3}, {"history": items[3:6], "k": 3}])
    run_runs(plan)


def queries(dashboard: Path) -> Iterator[tuple[str, str]]:
    """Title and expression of every panel query, as Grafana would send it."""
    for panel in json.loads(dashboard.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            yield panel["title"], expression


def result(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """The result of a Prometheus query."""
    answer = ask(f"{prometheus}/api/v1/query?{urlencode({'query': expression})}")
    return answer.json()["data"]["result"] if answer.is_success else []


def check_panels(prometheus: str, findings: Findings) -> None:
    """Every panel query returns data, and a number at that."""
    for dashboard in sorted(DASHBOARDS.glob("*.json")):
        asked = list(queries(dashboard))
        empty = [
            (title, expression)
            for title, expression in asked
            if not any(math.isfinite(float(series["value"][1])) for series in result(prometheus, expression))
        ]
        findings.check(not empty, f"{dashboard.stem}: {len(asked) - len(empty)} of {len(asked)} panel queries return data")
        for title, expression in empty:
            print(f"      nothing for {title!r}: {expression}")


def check_rules(prometheus: str, findings: Findings) -> None:
    """Prometheus evaluates every rule, and none fires on a healthy server."""
    groups = ask(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    well = [rule for rule in rules if rule["health"] == "ok"]
    findings.check(len(well) == len(rules) > 0, f"{len(well)} of {len(rules)} rules are evaluated without an error")
    firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
    findings.check(not firing, f"no alert fires on a healthy server {firing or ''}".rstrip())


def arrived(alertmanager: str, name: str) -> bool:
    """True if an alert is active in Alertmanager."""
    alerts = ask(f"{alertmanager}/api/v2/alerts?active=true").json()
    return any(alert["labels"]["alertname"] == name for alert in alerts)


def check_alert(server: ServerProcess, model: Path, alertmanager: str, findings: Findings) -> None:
    """Kill the engine where it can't come back, and wait for the alert; then let it come back."""
    away = model.rename(model.with_name("away"))
    server.engine.kill()
    seconds = wait_until(lambda: arrived(alertmanager, "AtspeedEngineDown"), 150)
    findings.check(seconds is not None, f"engine killed: AtspeedEngineDown is in Alertmanager after {seconds or math.nan:.0f} s")
    away.rename(model)
    seconds = wait_until(lambda: not arrived(alertmanager, "AtspeedEngineDown"), 150)
    findings.check(seconds is not None, f"engine back: the alert has ended after {seconds or math.nan:.0f} s")


def main() -> None:
    """Check that every panel has data and alerts arrive; takes no options (minutes)."""
    end_on_sigterm()
    findings = Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder)
        keys = folder / "keys.json"
        key, weak = add_key(keys, "check", list(Scope)), add_key(keys, "weak", [Scope.RECOMMEND])
        # That of `atspeed-bench load`.
        os.environ["ATSPEED_KEY"] = key
        shutil.copytree(folder / "model", folder / "draft")
        with (
            served(folder, *FLAGS, "--draft", str(folder / "draft"), "--keys", str(keys)) as server,
            monitored(folder, server.url) as (prometheus, alertmanager),
        ):
            put_under_load(server.url, key, weak)
            time.sleep(2)
            check_panels(prometheus, findings)
            check_rules(prometheus, findings)
            check_alert(server, folder / "model", alertmanager, findings)
    findings.end()


if __name__ == "__main__":
    typer.run(main)
