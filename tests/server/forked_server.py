"""`atspeed serve` for the tests of what it answers: forked, with its engine and its builders, from a process that has imported everything.

Most of a start is spent on imports, seconds of a processor for each engine and for each catalog that is built. They are made once, in the
process that `multiprocessing` forks from, and all that follows runs as behind `atspeed serve`: the same commands, files, signals and exit
statuses. Tests of processes themselves (how they start, what they import, how they end) take real ones, `ServerProcess`.
"""

import asyncio
import ctypes
import gc
import importlib
import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, Never

import psutil

from benchmarks.server_process import STOP_SECONDS
from server.engine.supervisor import WORKER_MODULE
from tests.server.server_process import ServerProcess

FORKED = {
    WORKER_MODULE: "engine",
    "server.catalogs.build": "build",
    "server.catalogs.placing": "placing",
    "tests.server.fake_worker": "engine",
    "tests.server.failing_draft_worker": "engine",
    "tests.server.catalogs.catalog_worker": "engine",
}
_PR_SET_NAME = 15
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.server.forked_imports"])
_execute = asyncio.create_subprocess_exec


class ForkedServer(ServerProcess):
    """A server without a program of its own: as `ServerProcess`, and ready in a fraction of its time."""

    def start(self) -> None:
        _, _, _, *arguments = self._command
        self.process = start_atspeed(arguments, self.log_file)

    def _engines(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.process.pid).children() if child.name() == FORKED[WORKER_MODULE]]


def start_atspeed(arguments: Sequence[str], log_file: Path) -> subprocess.Popen[bytes]:
    """The program `atspeed` with arguments, in this process's directory and environment; both its outputs go to a file."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    log_file.write_bytes(b"")
    environment = dict(os.environ) | {"COLUMNS": "200"}
    return _Process(FORKING.Process(target=_run, args=(list(arguments), log_file, Path.cwd(), environment), daemon=True))


class ForkedScript:
    """A Python script in a fork of this process, with pipes, as `subprocess.Popen` runs one: what is imported here is imported there."""

    def __init__(self, command: Sequence[str], *, stderr: IO[str], env: Mapping[str, str], **_: Any) -> None:
        """`command` ends with the script's file and its arguments, after the interpreter and `-P`."""
        (asked, asking), (answers, answering) = os.pipe(), os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _take_files(asked, answering, stderr.fileno())
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            _take_environment(env)
            sys.argv = list(command[2:])
            _become(lambda: runpy.run_path(command[2], run_name="__main__"))
        os.close(asked)
        os.close(answering)
        self.stdin, self.stdout = os.fdopen(asking, "w"), os.fdopen(answers)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> None:
        os.waitpid(self._pid, 0)


class _Process(subprocess.Popen[bytes]):
    """A process of `multiprocessing`, as one of `subprocess`."""

    def __init__(self, process: BaseProcess) -> None:
        process.start()
        assert process.pid is not None
        self._process, self.pid, self.returncode = process, process.pid, None

    def poll(self) -> int | None:
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired("atspeed serve", STOP_SECONDS if timeout is None else timeout)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def _run(arguments: list[str], log_file: Path, directory: Path, environment: Mapping[str, str]) -> None:
    """The program `atspeed`, in a process of its own."""
    os.chdir(directory)
    with log_file.open("wb") as log:
        _take_files(os.open(os.devnull, os.O_RDONLY), log.fileno(), log.fileno())
    _take_environment(environment)
    sys.argv = ["atspeed", *arguments]
    asyncio.create_subprocess_exec = fork_or_execute
    from server.commands.app import app

    app()


async def fork_or_execute(*command: str, **settings: Any) -> Any:
    """Instead of `asyncio.create_subprocess_exec`: what is in `FORKED` is forked from this process, as if `command[0]` had been run."""
    if len(command) < 4 or command[3] not in FORKED or not Path(command[0]).is_file():
        return await _execute(*command, **settings)
    child = _Child(command[3], command[4:], settings["env"], bool(settings.get("start_new_session")))
    if settings["stdin"] == asyncio.subprocess.DEVNULL:
        child.fork(os.open(os.devnull, os.O_RDONLY), os.dup(2))
    return child


class _Child:
    """As `asyncio.subprocess.Process`, as far as the server knows it."""

    pid: int

    def __init__(self, module: str, arguments: tuple[str, ...], environment: Mapping[str, str], leads: bool) -> None:
        self._module, self._arguments, self._environment, self._leads = module, arguments, environment, leads
        self.returncode: int | None = None
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()

    def fork(self, stdin: int, stdout: int) -> None:
        """Start it; the files are its own from then on."""
        self.pid = os.fork()
        if self.pid == 0:
            _become(lambda: self._run(stdin, stdout))
        os.close(stdin)
        os.close(stdout)
        descriptor = os.pidfd_open(self.pid)
        self._loop.add_reader(descriptor, self._reap, descriptor)

    async def communicate(self, order: bytes) -> tuple[bytes, None]:
        with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered:
            asked.write(order)
            asked.flush()
            asked.seek(0)
            self.fork(os.dup(asked.fileno()), os.dup(answered.fileno()))
            await self.wait()
            answered.seek(0)
            return answered.read(), None

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _reap(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._ended.set_result(self.returncode)

    def _run(self, stdin: int, stdout: int) -> None:
        if self._leads:
            os.setsid()
        _take_files(stdin, stdout, 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        _take_environment(self._environment)
        ctypes.CDLL(None).prctl(_PR_SET_NAME, FORKED[self._module].encode())
        sys.argv = [self._module, *self._arguments]
        sys.modules.pop(self._module, None)
        runpy.run_module(self._module, run_name="__main__", alter_sys=True)


def _become(program: Callable[[], object]) -> Never:
    """Run a program in this process, which has just been forked out of another, and end."""
    # Nothing of the parent's is ever collected here: its sockets and loop would be closed with it.
    gc.freeze()
    _forget_half_imported()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    status = 1
    try:
        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except Exception:
        logging.exception("the program in this process has failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _forget_half_imported() -> None:
    """Import anew what another thread was importing at the fork: that thread, and with it the end of its import, is not here."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if getattr(spec, "_initializing", False):
            del sys.modules[name]
            # The lock of that import is held by nobody who could let go of it.
            importlib._bootstrap._module_locks.pop(name, None)  # type: ignore[attr-defined]


def _take_files(stdin: int, stdout: int, stderr: int) -> None:
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))


def _take_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
