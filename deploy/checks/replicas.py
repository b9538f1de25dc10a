"""Three replicas as the chart makes them, on one Redis and one object store: what one is told, all know, and a pod that is replaced too.

Each replica is a real server with the environment of the chart's Deployment and the keys of its Secret. moto's S3 stands in for the object
store; a flag says what a pod would have for itself: an address, its cache, and where the Secret is mounted.

Run:  python -m deploy.checks.replicas
"""

import base64
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer
import yaml

from benchmarks.endings import end_on_sigterm
from benchmarks.load.small_model import make_model
from benchmarks.server_process import ServerProcess
from deploy.checks.chart import render
from deploy.checks.findings import Findings
from deploy.checks.processes import ask, wait_until
from server.client import AtspeedClient, ProblemError
from tests.services import ObjectStore, RedisServer

REPLICAS = 3
# Until a write is everywhere; the followers' own bound is a second, on an idle machine.
SECONDS = 30.0
VERSION = "second"


def rendered(folder: Path, redis: str, catalogs: str) -> list[dict[str, Any]]:
    """The chart's objects for three replicas with keys, a Redis of one's own and versions in an object store."""
    values = {
        "replicaCount": REPLICAS,
        "settings": {"engine": "transformers", "threads": 1, "plan": "none", "kv_memory_gib": 0.05},
        "model": {"target": "model", "volume": {"kind": "hostPath", "mountPath": str(folder), "hostPath": {"path": str(folder)}}},
        "histories": {"mode": "external", "url": redis},
        "catalogs": {"url": catalogs, "existingSecret": {"name": "s3"}},
    }
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    said = render(file)
    if said.returncode:
        raise SystemExit(said.stderr)
    return [part for part in yaml.safe_load_all(said.stdout) if part]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The chart's one object of a kind."""
    (found,) = (part for part in objects if part["kind"] == kind)
    return found


class Pods:
    """The servers of the chart's Deployment.

    Attributes:
        keys: what the Secret holds, by the names of its entries.
    """

    def __init__(self, folder: Path, objects: list[dict[str, Any]]) -> None:
        self._folder, self._count = folder, 0
        self.keys = {name: base64.b64decode(value).decode() for name, value in of_kind(objects, "Secret")["data"].items()}
        (folder / "keys.json").write_text(self.keys["keys.json"])

    def start(self, stack: ExitStack) -> ServerProcess:
        """Another replica; it ends with the stack."""
        self._count += 1
        own = self._folder / f"pod-{self._count}"
        own.mkdir()
        flags = {"--host": "127.0.0.1", "--catalog-cache": str(own / "cache"), "--keys": str(self._folder / "keys.json")}
        return stack.enter_context(ServerProcess(own, *(part for flag in flags.items() for part in flag)))

    def client(self, server: ServerProcess, key: str) -> AtspeedClient:
        """A client of one replica, by a key of the Secret."""
        return AtspeedClient(server.url, key=self.keys[key], deadline=60, trust_env=False)


def refusal(client: AtspeedClient) -> int:
    """The status of an attempt to change a filter; 200 if it is not refused."""
    try:
        client.put_filter("mine", items=[])
    except ProblemError as error:
        return error.status
    return 200


def check_keys(pods: Pods, servers: list[ServerProcess], findings: Findings) -> None:
    """The keys of the chart's Secret, on every replica."""
    path = "/v1/catalog/items?limit=1"
    keyless = [ask(f"{server.url}{path}").status_code for server in servers]
    wrong = [ask(f"{server.url}{path}", headers={"Authorization": "Bearer atspeed_wrong"}).status_code for server in servers]
    findings.check(keyless == wrong == [401] * REPLICAS, f"without a key of the Secret: {keyless}, with a wrong one: {wrong}")
    refused = []
    for server in servers:
        with pods.client(server, "clients") as client:
            refused.append(refusal(client))
    findings.check(refused == [403] * REPLICAS, f"the key `clients` changes nothing of the catalog: {refused}")


def version_of(pods: Pods, server: ServerProcess) -> str:
    """The version that a list of one replica is from."""
    with pods.client(server, "clients") as client:
        item = client.items(limit=1).items[0].item_id
        return client.recommend(history=[item], k=3).catalog_version


def knows(pods: Pods, server: ServerProcess, version: str) -> bool:
    """Whether a replica serves a version, and has the filter."""
    with pods.client(server, "operator") as client:
        return version_of(pods, server) == version and [each.name for each in client.filters().filters] == ["cheap"]


def check_agreement(pods: Pods, servers: list[ServerProcess], catalog: Path, findings: Findings) -> None:
    """A filter by one replica, a version by the next, activated by the third."""
    first, second, third = servers
    with pods.client(first, "operator") as client:
        item = client.items(limit=1).items[0].item_id
        client.put_filter("cheap", items=[item])
    with pods.client(second, "operator") as client:
        uploaded = client.upload_catalog(VERSION, catalog).version

    def activated() -> bool:
        with pods.client(third, "operator") as client:
            if uploaded not in client.catalogs().versions:
                return False
            client.activate(uploaded, "check")
            return True

    found = wait_until(activated, SECONDS)
    findings.check(found is not None, f"a version uploaded by the second replica is activated by the third, {found or SECONDS:.1f} s later")
    everywhere = wait_until(lambda: all(knows(pods, server, uploaded) for server in servers), SECONDS)
    findings.check(everywhere is not None, "all replicas serve the version, and know the filter of the first")
    with pods.client(first, "operator") as client:
        standing = client.control().replicas
    findings.check(
        len(standing) == REPLICAS and len({each.revision for each in standing}) == 1 and all(each.ready for each in standing),
        f"GET /v1/control: {len(standing)} replicas, ready, at the revisions {sorted({each.revision for each in standing})}",
    )


def main() -> None:
    """Check what three replicas of the chart know of each other; takes no options (minutes)."""
    end_on_sigterm()
    findings = Findings()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        make_model(folder)
        lines = (folder / "catalog.jsonl").read_text().splitlines(keepends=True)
        (folder / "second.jsonl").write_text("".join(lines[:-10]))
        (folder / "redis").mkdir()
        redis = RedisServer(folder / "redis", "--appendonly", "no").start()
        stack.callback(redis.close)
        store = ObjectStore()
        stack.callback(store.close)
        objects = rendered(folder, redis.url, f"{store.bucket('catalogs')}/shop")
        deployment = of_kind(objects, "Deployment")["spec"]
        findings.check(deployment["replicas"] == REPLICAS, f"the Deployment has {deployment['replicas']} replicas")
        (server,) = deployment["template"]["spec"]["containers"]
        secrets = [each["secretRef"]["name"] for each in server["envFrom"] if "secretRef" in each]
        findings.check(secrets == ["s3"], f"its environment has the object store's credentials, of the Secrets {secrets}")
        # What a pod has from there.
        os.environ.update(store.environment | {each["name"]: each["value"] for each in server["env"]})
        pods = Pods(folder, objects)
        servers = [pods.start(stack) for _ in range(REPLICAS)]
        for each in servers:
            each.wait_until_ready()
        findings.check(len({version_of(pods, each) for each in servers}) == 1, "all replicas begin with one version of the catalog")
        check_keys(pods, servers, findings)
        check_agreement(pods, servers, folder / "second.jsonl", findings)
        served = version_of(pods, servers[0])
        servers[0].close()
        replaced = pods.start(stack).wait_until_ready()
        findings.check(knows(pods, replaced, served), "a replica that is replaced serves the same, with a cache of its own")
    findings.end()


if __name__ == "__main__":
    typer.run(main)
