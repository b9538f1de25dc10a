"""Programs that a benchmark, a check or a test starts beside itself, and the server among them.

Invariant: what was started is gone when its `with` ends, also when the process that started it is ended by SIGTERM
(`benchmarks.endings.end_on_sigterm`), so that no measurement runs beside what an earlier one has left behind.
"""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.endings import ProgramError
from server.client import AtspeedClient
from server.engine.parent import child_environment
from server.engine.supervisor import WORKER_MODULE

START_SECONDS = 120.0
STOP_SECONDS = 30.0
ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def local_client(url: str = "") -> httpx.Client:
    """A client of what runs on this machine, which no proxy of the user's environment can reach."""
    # A catalog is built at a low priority: beside others' work it is long in coming.
    return httpx.Client(base_url=url, timeout=120, trust_env=False)


def answers(client: httpx.Client, url: str) -> bool:
    """True if a URL answers with success."""
    try:
        return client.get(url).is_success
    except httpx.TransportError:
        return False


class Program:
    """A program in a process of its own, with a log file.

    Attributes:
        log_file: takes its standard output and error.
        process: of it, once it is started.
        client: for what it answers.
    """

    process: "subprocess.Popen[bytes]"

    def __init__(self, command: Sequence[str], log_file: Path, ready_url: str | None = None) -> None:
        """`ready_url` answers with success as soon as the program can be used."""
        self._command, self.log_file, self._ready_url = command, log_file, ready_url
        self.client = local_client()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_for(self._is_up)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def log(self) -> str:
        """The output of the program so far."""
        return self.log_file.read_text()

    def start(self) -> None:
        """Start it and return at once."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        # This project's packages are found from any directory; tables in the log are not cut to 80 columns.
        environment = child_environment(COLUMNS="200")
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def run(self) -> tuple[int, str]:
        """Run a program that is expected to end by itself; exit status and log."""
        self.start()
        try:
            return self.process.wait(START_SECONDS), self.log
        finally:
            self.close()

    def close(self) -> None:
        """End it by SIGTERM.

        Raises:
            ProgramError: it did not end, and was killed.
        """
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ProgramError(f"{self._command[0]} did not end within {STOP_SECONDS:.0f} s of SIGTERM:\n{self.log}") from error
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def wait_for(self, condition: Callable[[], bool], seconds: float = START_SECONDS, pause: float = 0.02) -> float:
        """Wait until something holds, looking after each pause; return how many seconds that took.

        Raises:
            ProgramError: the program ended, or it took too long.
        """
        started = time.monotonic()
        while not condition():
            if self.process.poll() is not None:
                raise ProgramError(f"{self._command[0]} ended with status {self.process.returncode}:\n{self.log}")
            if time.monotonic() - started > seconds:
                raise ProgramError(f"Still waiting after {seconds:g} s:\n{self.log}")
            time.sleep(pause)
        return time.monotonic() - started

    def _is_up(self) -> bool:
        return self._ready_url is None or answers(self.client, self._ready_url)


class ServerProcess(Program):
    """`atspeed serve` on a free port: an API process and its engine process. `with` waits until it listens.

    Attributes:
        url: of the server, from when it listens; `client` has it as its base.
    """

    url: str

    def __init__(self, folder: Path, *flags: str) -> None:
        """`folder` takes the log."""
        super().__init__([sys.executable, "-m", "server.cli", "serve", "--port", "0", *flags], folder / "server.log")

    def _is_up(self) -> bool:
        found = re.search(r"listening on (\S+),", self.log)
        if found is not None:
            self.client.base_url, self.url = httpx.URL(found[1]), found[1]
        return found is not None

    def wait_until_ready(self, seconds: float = START_SECONDS) -> Self:
        """Wait until the server takes requests.

        Raises:
            ProgramError: it ended, or took too long.
        """
        self.wait_for(self._is_up, seconds)
        # The engine imports and loads meanwhile, and needs the processors that questions would take.
        self.wait_for(lambda: answers(self.client, "/ready"), seconds, pause=0.1)
        return self

    @property
    def engine(self) -> psutil.Process:
        """The engine process; beside it there may be processes that build catalogs."""
        (engine,) = self._engines()
        return engine

    def _engines(self) -> list[psutil.Process]:
        # Between its birth and its command line a child is a copy of the server.
        return [child for child in psutil.Process(self.process.pid).children() if WORKER_MODULE in child.cmdline()]

    def memory_mib(self, *, engine: bool = True) -> float:
        """Resident memory of the API process, with that of the engine process or without."""
        api = psutil.Process(self.process.pid)
        return sum(int(process.memory_info().rss) for process in (api, *(api.children(recursive=True) if engine else ()))) / 2**20

    def api(self) -> AtspeedClient:
        """A typed client of it, which its caller closes; `client` is for what this one hides: statuses, headers, bytes."""
        return AtspeedClient(self.url, trust_env=False)

    def recommend(self, **body: Any) -> httpx.Response:
        """Ask for a list, and have its answer as it came."""
        return self.client.post("/v1/recommendations", json=body)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series that have these labels."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())
