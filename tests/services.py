"""Real servers for the tests: a Redis that can be paused, killed and started again on the port it had.

Invariant: a server and its data live in a folder of the test's own and end with `close`. Reason: a suite must neither read what another
left, nor leave a process.
"""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

REDIS_BINARY = shutil.which("redis-server")
REDIS_MISSING = "the redis-server binary is not installed (make test installs it)"
_START_SECONDS = 10.0


class RedisServer:
    """A `redis-server` on a free port of 127.0.0.1, which keeps its log and its data in `folder`.

    It syncs each write to disk, so that a kill loses nothing; `options` are those of its command line and come last, so they win.
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
        with (self.folder / "redis.log").open("wb") as log:
            command = (REDIS_BINARY, "--bind", "127.0.0.1", *self._port_options, *persistence, *self.options)
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + _START_SECONDS
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


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
