"""The server on trial: an API process that is started again whenever it ends, as Kubernetes would, and the store behind it.

Invariant: the address, the directory of versions and the history store outlive every process, so what a process has acknowledged must be
there after the next start.
"""

import time
from pathlib import Path

import psutil

from benchmarks.server_process import Program, ServerProcess, free_port

# A killed API process takes its engine with it, by the kernel's signal at once.
ORPHAN_SECONDS = 5.0


class RedisProcess(Program):
    """A `redis-server` that writes each command to disk before it answers."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        persistence = ["--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        super().__init__(["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), *persistence], folder / "redis.log")

    @property
    def url(self) -> str:
        """Its address for `--histories`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _is_up(self) -> bool:
        return "ready to accept connections" in self.log.lower()


class Trial:
    """Starts servers at one address, one after the other.

    Attributes:
        url: of all of them.
        starts: how many there were.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self._folder, self._flags = folder, ("--port", str(free_port()), *flags)
        self.url = f"http://127.0.0.1:{self._flags[1]}"
        self.starts = 0
        self._down: list[tuple[float, float]] = []
        self._server: ServerProcess | None = None

    @property
    def server(self) -> ServerProcess:
        """The server that runs now."""
        assert self._server is not None, "start it first"
        return self._server

    def start(self) -> None:
        """Start a server and wait until it takes requests.

        Raises:
            ProgramError: it does not.
        """
        self.starts += 1
        self._server = ServerProcess(self._folder / f"start-{self.starts}", *self._flags)
        self._server.start()
        self._server.wait_until_ready()

    def restart_killed(self) -> bool:
        """Kill the API process and start another; False if the engine outlived it.

        Raises:
            ProgramError: the next one does not take requests.
        """
        server, engine = self.server, self.server.engine
        killed = time.monotonic()
        self._down.append((killed, float("inf")))
        server.process.kill()
        server.process.wait()
        server.client.close()
        _, alive = psutil.wait_procs([engine], timeout=ORPHAN_SECONDS)
        for process in alive:
            process.kill()
        self.start()
        self._down[-1] = (killed, time.monotonic())
        return not alive

    def was_down(self, began: float) -> bool:
        """True if the server was down at any time since then, by this process's monotonic clock."""
        return any(began < until and since <= time.monotonic() for since, until in self._down)

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()
