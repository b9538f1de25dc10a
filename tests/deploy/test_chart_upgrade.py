"""The chart where its Secret of keys is already there: Helm asks a stand-in for a cluster's API, which has nothing else."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.checks.chart import run
from deploy.checks.tools import CHART, find_tool

# What the chart makes, by group.
KINDS = {
    "v1": ["PersistentVolumeClaim", "Pod", "Secret", "Service", "ServiceAccount"],
    "apps/v1": ["Deployment", "StatefulSet"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
}
SECRET = "/api/v1/namespaces/atspeed/secrets/atspeed-keys"

pytestmark = pytest.mark.skipif(find_tool("helm") is None, reason="helm is not installed (deploy/checks/tools.sh installs it)")


def discovery(group: str) -> dict[str, Any]:
    plurals = {kind: re.sub("y$", "ie", kind.lower()) + "s" for kind in KINDS[group]}
    kinds = [{"kind": kind, "name": name, "namespaced": True, "verbs": ["get"]} for kind, name in plurals.items()]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": kinds}


def answers(secret: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the API says by path; all else is not there."""
    groups = [{"name": group.split("/")[0], "versions": [{"groupVersion": group, "version": "v1"}]} for group in KINDS if "/" in group]
    return {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        SECRET: secret,
        **{f"/apis/{group}" if "/" in group else f"/api/{group}": discovery(group) for group in KINDS},
    }


@contextmanager
def cluster(held: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The URL of an API that answers with what it holds."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = held.get(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as api:
        thread = threading.Thread(target=api.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{api.server_port}"
        api.shutdown()
        thread.join()


@pytest.fixture
def upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """What Helm says to an upgrade that adds `admin` to `keys.first`, where the Secret has keys of these holders and these annotations."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("HELM_", "KUBE"))]:
        monkeypatch.delenv(name)

    def upgrade(holders: list[str], annotations: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
        metadata = {"name": "atspeed-keys", "namespace": "atspeed", "annotations": annotations}
        data = dict.fromkeys([*holders, "keys.json"], "e30=")
        with cluster(answers({"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": data})) as url:
            options = ("--namespace", "atspeed", "--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", url, *more)
            return run(find_tool("helm"), "template", "atspeed", CHART, *options, "--set-json", 'keys.first.admin=["operate"]')

    return upgrade


OWN = {"helm.sh/hook": "pre-install,pre-upgrade", "helm.sh/resource-policy": "keep"}
# Of a release from when the Secret was a part of it.
OF_THE_RELEASE = {"meta.helm.sh/release-name": "atspeed", "meta.helm.sh/release-namespace": "atspeed"}


def made(said: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The objects by kind."""
    assert said.returncode == 0, said.stderr
    return {part["kind"]: part for part in yaml.safe_load_all(said.stdout) if part}


@pytest.mark.parametrize("annotations", [OWN, OF_THE_RELEASE | {"helm.sh/resource-policy": "keep"}, {}])
def test_a_secret_that_is_there_is_left_alone(annotations: dict[str, str], upgrade: Callable[..., subprocess.CompletedProcess[str]]):
    assert "Secret" not in made(upgrade(["clients", "operator"], annotations))


@pytest.mark.parametrize("more", [(), ("--set", "keys.enabled=false"), ("--set", "keys.existingSecret.name=atspeed-keys")])
def test_keys_that_helm_would_delete_stop_the_upgrade(more: tuple[str, ...], upgrade: Callable[..., subprocess.CompletedProcess[str]]):
    refused = upgrade(["clients", "operator"], OF_THE_RELEASE, *more)
    assert refused.returncode != 0
    assert "kubectl --namespace atspeed annotate secret atspeed-keys helm.sh/resource-policy=keep" in refused.stderr


def test_the_test_mounts_a_key_that_the_kept_secret_has(upgrade: Callable[..., subprocess.CompletedProcess[str]]):
    """Pods with an entry that a Secret lacks never start."""
    pod = made(upgrade(["clients", "operator"], OWN))["Pod"]["spec"]
    assert pod["volumes"] == [
        {"name": "key", "secret": {"secretName": "atspeed-keys", "defaultMode": 0o444, "items": [{"key": "clients", "path": "key"}]}}
    ]


def test_the_test_goes_without_a_key_where_the_kept_secret_has_none(upgrade: Callable[..., subprocess.CompletedProcess[str]]):
    pod = made(upgrade([], OWN))["Pod"]["spec"]
    assert "volumes" not in pod
    assert "volumeMounts" not in pod["containers"][0]
