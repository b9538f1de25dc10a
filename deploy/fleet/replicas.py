"""`Fleet`: server processes behind an Envoy that sends each request to one by chance, or to one that is named."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.server_process import Program, ServerProcess, answers, free_port
from benchmarks.soak.catalog_lines import CatalogLines
from deploy.checks.routing import envoy_config
from deploy.checks.tools import tool
from server.keys.file import add_key
from server.keys.key import Scope

READY_SECONDS = 300.0
ANSWER_SECONDS = 60
FLAGS = ("--engine", "transformers", "--threads", "1", "--plan", "none", "--kv-memory-gib", "0.05")
# An upload may take longer than the 15 s that Envoy waits otherwise.
ROUTE: dict[str, Any] = {
    "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}], "timeouts": {"request": f"{ANSWER_SECONDS}s"}}]
}
# As the chart's, but that each answer of a server is to be seen, so nothing is asked again, and that who was killed comes back at once.
POLICY: dict[str, Any] = {
    "timeout": {"http": {"connectionIdleTimeout": "60000ms"}},
    "loadBalancer": {"consistentHash": {"header": {"name": "X-User-Id"}, "tableSize": 65537}},
    "retry": {"numRetries": 0, "retryOn": {"triggers": ["connect-failure"]}},
    "healthCheck": {
        "active": {"timeout": "1s", "interval": "1s", "unhealthyThreshold": 2, "healthyThreshold": 1, "http": {"path": "/ready"}},
        "passive": {
            "splitExternalLocalOriginErrors": True,
            "consecutiveLocalOriginFailures": 2,
            "consecutive5XxErrors": 0,
            "consecutiveGatewayErrors": 0,
            "interval": "1s",
            "baseEjectionTime": "1s",
            "maxEjectionPercent": 100,
        },
    },
}


class Replica(ServerProcess):
    """A server on a port that it keeps when it is started again; each start has a log of its own."""

    def __init__(self, folder: Path, port: int, *flags: str) -> None:
        super().__init__(folder, *flags, "--port", str(port))
        self.address, self.starts = f"127.0.0.1:{port}", 0

    def kill(self) -> None:
        """End it without a word; its engine ends by itself."""
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        self.starts += 1
        self.log_file = self.log_file.with_name(f"server-{self.starts}.log")
        super().start()

    def stop(self) -> None:
        """Let its API process stand still."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def is_ready(self) -> bool:
        return answers(self.client, "/ready")


class Fleet:
    """Some replicas of one model, and what clients need to ask them.

    Attributes:
        folder: of all files.
        lines: the catalog that they are started with.
        key: opens everything.
        url: of Envoy.
        catalogs: directory of the versions.
        start: name of the version that they are started with; known once they are.
        flags: of every server.
    """

    def __init__(self, folder: Path, redis_url: str, shape: str = "tiny", *flags: str) -> None:
        """Nothing is started yet; `shape` names the model and its catalog, and `flags` are the servers'."""
        self.folder = folder
        self.lines, self.catalogs = CatalogLines(shape), folder / "catalogs"
        self.catalogs.mkdir()
        self.lines.write(folder)
        self.key = add_key(folder / "keys.json", "check", list(Scope))
        self.replicas: list[Replica] = []
        self.url = self.start = ""
        model = ("--target", str(folder / "model"), "--catalog", str(folder / "catalog.jsonl"))
        shared = ("--histories", redis_url, "--catalogs", str(self.catalogs), "--keys", str(folder / "keys.json"))
        self.flags = [*FLAGS, *model, *shared, *flags]

    @contextmanager
    def started(self, count: int) -> Iterator[None]:
        """Start replicas, and Envoy when they are ready."""
        with ExitStack() as stack:
            for _ in range(count):
                self.replicas.append(stack.enter_context(self.replica()))
            for replica in self.replicas:
                self._settle(replica)
            stack.enter_context(self.gateway())
            with self.client(self.replicas[0].url) as client:
                self.start = client.get("/v1/catalogs").raise_for_status().json()["active"]
            yield

    @contextmanager
    def another(self) -> Iterator[Replica]:
        """One more replica, which Envoy does not know, ready."""
        with self.replica() as replica:
            self._settle(replica)
            yield replica

    def client(self, url: str = "") -> httpx.Client:
        """A client of Envoy, or of one replica, with the key; each request has a connection of its own, so that any replica gets it."""
        limits = httpx.Limits(max_keepalive_connections=0)
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=url or self.url, headers=headers, limits=limits, timeout=ANSWER_SECONDS + 1, trust_env=False)

    def replica(self) -> Replica:
        """One more, not started yet."""
        port = free_port()
        return Replica(self.folder / f"server-{port}", port, *self.flags)

    def _settle(self, replica: Replica) -> None:
        replica.wait_until_ready(READY_SECONDS)

    @contextmanager
    def gateway(self) -> Iterator[None]:
        """Have what `client` asks answered by a replica by chance: an Envoy, at `url`."""
        port, admin_port = free_port(), free_port()
        config = envoy_config([(ROUTE, POLICY)], port, admin_port, [replica.address for replica in self.replicas])
        file = self.folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [tool("envoy"), "-c", str(file), "--log-level", "error", "--base-id", str(os.getpid()), "--concurrency", "1"]
        with Program(command, self.folder / "envoy.log", f"http://127.0.0.1:{admin_port}/ready"):
            self.url = f"http://127.0.0.1:{port}"
            yield
