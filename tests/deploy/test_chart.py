"""The chart: its schema speaks of every value and of the server's flags, wrong values are refused; its keys, its Redis, its dashboards."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy.checks.chart import BAD_VALUES, VALUE_SETS, expected_complaint, render
from deploy.checks.tools import CHART, RULES, find_tool
from deploy.helm.settings_schema import OWN, SCHEMA, updated
from server.keys.file import parse
from server.settings import Settings
from tests.deploy.rendered import environment, objects, one

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
needs_helm = pytest.mark.skipif(find_tool("helm") is None, reason="helm is not installed (deploy/checks/tools.sh installs it)")


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    return json.loads(SCHEMA.read_text())


def merged(values: dict, more: dict) -> dict:
    """Values as Helm merges them: maps by key, all else is replaced."""
    both = {key: merged(values[key], more[key]) for key in values.keys() & more.keys() if isinstance(values[key], dict)}
    return values | more | both


def described(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, bool]]:
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", bool(part.get("description"))
        yield from described(part, f"{path}.{name}")


def test_the_chart_takes_exactly_the_servers_settings():
    text = SCHEMA.read_text()
    assert updated(text) == text, "run python deploy/helm/settings_schema.py"
    assert set(json.loads(text)["properties"]["settings"]["properties"]) == set(Settings.model_fields) - OWN


def test_every_value_has_a_description(schema: dict[str, Any]):
    assert [path for path, has_one in described(schema) if not has_one] == []


def test_the_schema_knows_every_value(schema: dict[str, Any]):
    def check(values: dict, part: dict, path: str) -> None:
        assert part.get("additionalProperties") is not None, path
        for name, value in values.items():
            assert name in part["properties"], f"{path}.{name}"
            if isinstance(value, dict) and "properties" in part["properties"][name]:
                check(value, part["properties"][name], f"{path}.{name}")

    check(VALUES, schema, "")


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_the_value_sets_fit_the_schema(path, schema: dict[str, Any]):
    jsonschema.validate(merged(VALUES, yaml.safe_load(path.read_text())), schema)


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_examples_let_pods_reach_an_external_redis(path):
    values = merged(VALUES, yaml.safe_load(path.read_text()))
    policy = values["networkPolicy"]
    assert not policy["enabled"] or values["histories"]["mode"] != "external" or policy["egressNamespaces"] or policy["egressCidrs"]


@needs_helm
@pytest.mark.parametrize("path", BAD_VALUES, ids=lambda path: path.stem)
def test_a_wrong_value_is_refused_by_name(path):
    refused = render(path)
    assert refused.returncode != 0
    assert expected_complaint(path) in refused.stderr


@pytest.mark.parametrize(
    ("url", "is_fine"),
    [
        ("redis://redis:6379/1", True),
        ("redis://:secret@redis:6379/1", False),
        ("redis://:$ecret@redis:6379/1", False),
        ("redis://:$(REDIS_PASSWORD)@redis:6379/1", True),
        ("redis+sentinel://$(NAME):$(REDIS_PASSWORD)@s0:26379,s1:26379/mymaster/1?sentinel_password=$(SENTINEL_PASSWORD)", True),
        ("redis+sentinel://s0:26379,s1:26379/mymaster/1?sentinel_password=secret", False),
    ],
)
def test_a_variable_may_take_its_password_from_another(url: str, is_fine: bool, schema: dict[str, Any]):
    """Kubernetes puts that, which may be of a Secret, in the place of its name."""
    variable = jsonschema.Draft7Validator(schema["properties"]["extraEnv"]["items"])
    assert [variable.is_valid({"name": name, "value": url}) for name in ("ATSPEED_CONTROL", "OTHER")] == [is_fine, True]
    assert variable.is_valid({"name": "ATSPEED_CONTROL", "valueFrom": {"secretKeyRef": {"name": "redis", "key": "url"}}})


@pytest.mark.parametrize(
    ("interval", "is_fine"), [("500ms", True), ("15s", True), ("60s", True), ("1m", True), ("61s", False), ("2m", False), ("0s", False)]
)
def test_the_server_is_scraped_often_enough_for_its_alerts(interval: str, is_fine: bool, schema: dict[str, Any]):
    """A rate of a window with one scrape is none, and what it would tell of never fires."""
    monitor = schema["properties"]["monitoring"]["properties"]["serviceMonitor"]["properties"]
    assert jsonschema.Draft7Validator(monitor["interval"]).is_valid(interval) is is_fine
    assert min(int(minutes) for minutes in re.findall(r"\[(\d+)m\]", RULES.read_text())) >= 2


@pytest.mark.parametrize(
    ("size", "is_fine"), [("16Gi", True), ("1.5G", True), ("500k", True), ("9", True), ("16K", False), ("1.2.3Gi", False), ("", False)]
)
def test_the_size_of_the_cache_is_one_that_kubernetes_reads(size: str, is_fine: bool, schema: dict[str, Any]):
    """It knows `k` and `Ki`, and no `K`."""
    described = schema["properties"]["catalogs"]["properties"]["cacheSize"]
    assert jsonschema.Draft7Validator(described).is_valid(size) is is_fine


def test_the_chart_hands_out_alerts_and_dashboards(everything: list[dict[str, Any]]):
    rules = [rule for group in one(everything, "PrometheusRule")["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert all(rule["annotations"]["runbook_url"].startswith("https://") for rule in rules)
    dashboards = [part for part in everything if part["metadata"]["labels"].get("grafana_dashboard") == "1"]
    titles = {json.loads(text)["title"] for part in dashboards for text in part["data"].values()}
    assert titles == {"atspeed: on call", "atspeed: speculation", "atspeed: recommendations"}


def test_the_bundled_redis_can_be_pulled_and_named():
    """A StatefulSet of more than 52 letters gets no pods."""
    rendered = objects("default", "--set", "imagePullSecrets[0].name=registry", "--set", f"fullnameOverride={'a' * 50}")
    redis = one(rendered, "StatefulSet")
    assert redis["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert len(redis["metadata"]["name"]) <= 52
    assert environment(rendered)["ATSPEED_HISTORIES"] == f"redis://{redis['metadata']['name']}:6379/0"
    assert any(part["kind"] == "Service" and part["metadata"]["name"] == redis["metadata"]["name"] for part in rendered)


def test_the_first_install_makes_keys_that_the_server_knows(everything: list[dict[str, Any]]):
    """Pods get the digests alone; the keys lie beside them in the Secret."""
    entries = {name: base64.b64decode(text) for name, text in one(everything, "Secret")["data"].items()}
    keys = parse(entries.pop("keys.json"), Path("keys.json"))
    made = {key.name: (key.sha256, [scope.value for scope in key.scopes]) for key in keys.keys}
    assert made == {name: (keys.digest(text).hex(), VALUES["keys"]["first"][name]) for name, text in entries.items()}
    assert {key.name for key in keys.keys} == {"clients", "operator"}
    pod = one(everything, "Deployment")["spec"]["template"]["spec"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "keys"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "keys"]
    (item,) = volume["secret"]["items"]
    assert (item["key"], "subPath" in mount) == ("keys.json", False)
    assert environment(everything)["ATSPEED_KEYS"] == f"{mount['mountPath']}/{item['path']}"


def test_the_keys_are_no_part_of_the_release(everything: list[dict[str, Any]]):
    """A rollback would bring back keys that have been taken out."""
    annotations = one(everything, "Secret")["metadata"]["annotations"]
    assert annotations == {"helm.sh/hook": "pre-install,pre-upgrade", "helm.sh/resource-policy": "keep"}


def test_the_test_asks_with_a_key_that_may_ask():
    """`audit` comes first in the alphabet, and gets 403."""
    test = one(objects("default", "--set-json", 'keys.first={"audit":["operate"]}'), "Pod")
    (volume,) = test["spec"]["volumes"]
    assert volume["secret"]["items"] == [{"key": "clients", "path": "key"}]


@pytest.mark.parametrize(
    ("limits", "bytes_"),
    [
        ({"memory": "512Mi"}, 0.6 * 512 * 2**20),
        ({"memory": "1.5Gi", "cpu": 1}, 0.6 * 1.5 * 2**30),
        ({"memory": "700M"}, 0.6 * 700e6),
        ({"memory": 2_000_000_000}, 0.6 * 2e9),
        ({"memory": None}, None),
    ],
)
def test_the_bundled_redis_refuses_writes_before_it_is_killed_for_memory(limits: dict[str, Any], bytes_: float | None):
    rendered = objects("default", "--set-json", f"histories.bundled.resources.limits={json.dumps(limits)}")
    args = one(rendered, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--maxmemory-policy") + 1] == "noeviction"
    assert ([int(args[args.index("--maxmemory") + 1])] if "--maxmemory" in args else []) == ([] if bytes_ is None else [int(bytes_)])


def notes(home: Path, *options: str) -> str:
    """What an install with these options ends with."""
    command = (find_tool("helm"), "install", "atspeed", CHART, "--namespace", "atspeed", "--dry-run=client", *options)
    return subprocess.run(command, capture_output=True, text=True, env={"HOME": str(home)}).stdout.partition("NOTES:")[2]


@needs_helm
def test_the_notes_name_what_can_be_asked(tmp_path: Path):
    told = notes(tmp_path, "--set", "operatePort=8002", "--set-json", 'keys.first={"a.b":["recommend"]}')
    assert """--output go-template='{{ index .data "a.b" | base64decode }}'""" in told
    assert "port-forward service/atspeed-operate 8002" in told


@needs_helm
def test_the_notes_name_all_that_the_network_policy_keeps_from_pods(tmp_path: Path):
    options = ("--set", "catalogs.url=s3://catalogs/shop", "--set", "settings.otlp_endpoint=http://collector:4318")
    sentence = "does not let pods reach the object store of catalogs.url, the collector of settings.otlp_endpoint: name namespaces"
    assert sentence in notes(tmp_path, *options)
    assert "does not let pods reach" not in notes(tmp_path, *options, "--set-json", 'networkPolicy.egressCidrs=["10.1.0.0/16"]')
    own = ("--set", "settings.catalogs=s3://catalogs/shop", "--set", "settings.catalog_cache=/var/cache/versions")
    assert "does not let pods reach the object store of settings.catalogs: name namespaces" in notes(tmp_path, *own)
    assert "does not let pods reach" not in notes(tmp_path)
