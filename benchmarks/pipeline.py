"""Stages of a long benchmark: `atspeed` commands that are run once each; what is there is not made again.

Invariant: where a result's name is made of its command (`Stage.keyed`), so are the names of all results that are made from it. So a changed
recipe makes anew what depends on it and nothing else, and no result of another recipe is taken for its own.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from tqdm import tqdm

from benchmarks.endings import BenchmarkError
from server.engine.processors import usable_processors

STAGES_FILE = "stages.json"


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: what the logs and the times are kept under.
        arguments: of the command.
        result: what is there when the stage is done.
        command: its module.
    """

    name: str
    arguments: tuple[str, ...]
    result: Path
    command: str = "server.cli"

    @classmethod
    def keyed(
        cls,
        work: Path,
        name: str,
        arguments: tuple[str, ...],
        *,
        suffix: str = "",
        out: str = "--out",
        inner: str = "",
        inside: str = "",
        also: object = None,
        command: str = "server.cli",
    ) -> "Stage":
        """A stage whose result lies in `work/NAME-DIGEST`, with the digest of its command; where `work` is changes no digest.

        Args:
            name: a path below `work`.
            suffix: of the result's name.
            out: the option that takes the result.
            inner: a directory below the result that is given instead, where its name is shown in tables.
            inside: what is there in it when the stage is done.
            also: what the command reads beside its arguments, such as defaults; it goes into the digest as its `repr`.
        """
        told = "\0".join([*(part.replace(f"{work}{os.sep}", "") for part in arguments), repr(also)])
        made = work / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:8]}{suffix}" / inner
        return cls(name.replace("/", "-"), (*arguments, out, str(made)), made / inside, command)


class StageFailedError(BenchmarkError):
    """A stage that ended with an error; the message is a sentence and the last that the stage said."""


class Pipeline:
    """Runs stages, and remembers how long each took."""

    def __init__(self, work: Path) -> None:
        self.work = work
        (work / "logs").mkdir(parents=True, exist_ok=True)
        self._times = work / STAGES_FILE
        self._noting = Lock()
        self.seconds: dict[str, float] = json.loads(self._times.read_bytes()) if self._times.is_file() else {}

    def run(self, title: str, stages: Sequence[Stage], side_by_side: int = 1, threads: int | None = None) -> None:
        """Run what is missing of some stages, each with so many threads, by default its share of the cores.

        Raises:
            StageFailedError: one of them failed; those that ran beside it have ended as well.
        """
        missing = [stage for stage in stages if not stage.result.exists()]
        threads = threads or max(1, usable_processors() // side_by_side)
        started = time.monotonic()
        bar = tqdm(total=len(stages), initial=len(stages) - len(missing), desc=title, unit="stage")
        with bar, ThreadPoolExecutor(side_by_side) as pool:
            for _ in pool.map(lambda stage: self._run(stage, threads), missing):
                bar.update()
        if missing:
            # What another recipe took is no part of it.
            before = self.seconds.get(title, 0.0) if len(missing) < len(stages) else 0.0
            self._note(title, round(before + time.monotonic() - started, 1))

    def _note(self, title: str, seconds: float) -> None:
        """Keep what took how long; callers may run stages in threads of their own."""
        with self._noting:
            self.seconds[title] = seconds
            self._times.write_text(json.dumps(self.seconds, indent=2))

    def _run(self, stage: Stage, threads: int) -> None:
        log = self.work / "logs" / f"{stage.name}.log"
        stage.result.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", stage.command, *stage.arguments]
        # A sentence that is broken into lines could not be told whole.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "COLUMNS": "500"}
        with log.open("w") as output:
            print(" ".join(command), file=output, flush=True)
            ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        if ended.returncode:
            said = log.read_text().replace("\r", "\n").splitlines()
            # Frames of the command line's own errors say nothing.
            last = next(line.strip(" │") for line in reversed(said) if any(map(str.isalnum, line)))
            raise StageFailedError(f"{stage.name} failed (status {ended.returncode}); {log} ends with: {last}")
