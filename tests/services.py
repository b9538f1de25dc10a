"""Real servers for the tests: a Redis that can be paused, killed and started again on the port it had, a Cluster and Sentinels of such; an
object store.

Invariant: a server and its data live in a folder of the test's own and end with `close`. Reason: a suite must neither read what another
left, nor leave a process.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.request import Request, urlopen

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.server_process import free_port
from tests import waiting

REDIS_BINARY = shutil.which("redis-server")
REDIS_MISSING = "the redis-server binary is not installed (make test installs it)"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(["openssl", *request.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


class ObjectStore:
    """moto's S3 on a free port of 127.0.0.1; `environment` is what its clients need, as users of MinIO set it."""

    def __init__(self) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        command = sys.executable, "-m", "tests.object_store", str(port)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._await("start")
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    def bucket(self, name: str) -> str:
        """Make a bucket, and return its URL."""
        urlopen(Request(f"{self.endpoint}/{name}", method="PUT")).close()
        return f"s3://{name}"

    def pause(self) -> None:
        """Refuse connections."""
        self._ask("stop")

    def resume(self) -> None:
        """Serve again, with what it had before `pause`."""
        self._ask("start")

    def close(self) -> None:
        """End it, and what it had."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, turn: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._await(turn)

    def _await(self, turn: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{turn}\n"


class RedisServer:
    """A `redis-server` on a free port of 127.0.0.1, which keeps its log and its data in `folder`.

    It syncs each write to disk, so that a kill loses nothing, and sends what it has to a replica at once, where Redis waits five seconds
    for more of them; `options` are those of its command line and come last, so they win.
    """

    def __init__(self, folder: Path, *options: str, tls: bool = False) -> None:
        self.folder = folder
        self.port = free_port()
        self.options = options
        self._port_options = ("--port", "0", "--tls-port", str(self.port)) if tls else ("--port", str(self.port))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> str:
        return (self.folder / "redis.log").read_text()

    def start(self) -> Self:
        """Returns once connections are served. Raises RuntimeError, with the log, if that does not come to pass."""
        assert REDIS_BINARY is not None, REDIS_MISSING
        persistence = ("--dir", str(self.folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always")
        replication = ("--repl-diskless-sync-delay", "0")
        with (self.folder / "redis.log").open("wb") as log:
            command = (REDIS_BINARY, "--bind", "127.0.0.1", *self._port_options, *persistence, *replication, *self.options)
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + waiting.SECONDS
        while "ready to accept connections" not in self.log.lower():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start on port {self.port}:\n{self.log}")
            time.sleep(0.01)
        return self

    def pause(self) -> None:
        """Hangs the server: the kernel still accepts connections for it, and nothing answers."""
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends the server without giving it a chance to write anything."""
        self._running.kill()
        self._running.wait()

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start the server first"
        return self._process


class RedisClusterServers:
    """A Redis Cluster of three masters without replicas."""

    def __init__(self, folder: Path) -> None:
        self.servers = []
        for number in range(3):
            (folder / str(number)).mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--appendonly", "no")
            self.servers.append(RedisServer(folder / str(number), *options))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:2])

    def start(self) -> Self:
        """Returns once every server knows who has which slot.

        Every two of them are introduced: who is left to hear of another by chance may wait for longer than a busy machine's tests can.
        """
        nodes = [Redis(port=server.start().port, decode_responses=True) for server in self.servers]
        for number, node in enumerate(nodes):
            node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)  # type: ignore[no-untyped-call]
            node.execute_command("CLUSTER ADDSLOTSRANGE", number * 5462, min((number + 1) * 5462, 16384) - 1)  # type: ignore[no-untyped-call]
            for other in self.servers[:number]:
                node.execute_command("CLUSTER MEET", "127.0.0.1", other.port, other.options[3])  # type: ignore[no-untyped-call]
        deadline = time.monotonic() + waiting.SECONDS
        while any((info := node.cluster("info"))["cluster_state"] != "ok" or info["cluster_known_nodes"] != "3" for node in nodes):
            assert time.monotonic() < deadline, "the cluster did not come together"
            time.sleep(0.05)
        for node in nodes:
            node.close()
        return self

    def close(self) -> None:
        for server in self.servers:
            server.close()


class SentinelServers:
    """Sentinels that watch one master under the name `films`; they promote a replica when it has not answered for so long.

    `config` are further lines of their configuration, and `client` what a client of redis-py must be given to be let in.
    """

    def __init__(
        self,
        folder: Path,
        master: RedisServer,
        *,
        count: int = 1,
        down_after_ms: int = 1000,
        config: Sequence[str] = (),
        client: Mapping[str, Any] | None = None,
    ) -> None:
        self.ports = []
        self._client = dict(client or {})
        self._processes = []
        for number in range(count):
            port = free_port()
            file = folder / f"sentinel-{number}.conf"
            listen = f"port 0\ntls-port {port}" if self._client.get("ssl") else f"port {port}"
            file.write_text(
                f"bind 127.0.0.1\n{listen}\ndir {folder}\nlogfile {folder}/sentinel-{number}.log\n"
                f"sentinel monitor films 127.0.0.1 {master.port} {count // 2 + 1}\n"
                f"sentinel down-after-milliseconds films {down_after_ms}\nsentinel failover-timeout films 5000\n"
                + "".join(f"{line}\n" for line in config)
            )
            assert REDIS_BINARY is not None, REDIS_MISSING
            self._processes.append(subprocess.Popen([REDIS_BINARY, file, "--sentinel"], stdout=subprocess.DEVNULL))
            self.ports.append(port)

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.hosts}/films/0"

    def wait_for(self, replicas: int) -> Self:
        """Returns once every Sentinel answers, and knows the others and so many replicas."""
        deadline = time.monotonic() + waiting.SECONDS
        for port in self.ports:
            while True:
                assert time.monotonic() < deadline, "the Sentinels did not come together"
                try:
                    with Redis(port=port, protocol=2, **self._client) as sentinel:
                        master = sentinel.sentinel_master("films")
                    if master["num-slaves"] == replicas and master["num-other-sentinels"] == len(self.ports) - 1:
                        break
                except RedisError:
                    pass
                time.sleep(0.05)
        return self

    def kill_first(self) -> None:
        """Ends the Sentinel that the URL names first."""
        self._processes[0].kill()
        self._processes[0].wait()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
