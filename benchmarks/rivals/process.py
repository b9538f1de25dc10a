"""A measured process: a worker under a rival's own interpreter, asked over its standard streams.

Invariant: a process that was started is ended, and one that dies or is silent for too long is a sentence with the last line that it wrote.
"""

import json
import os
import select
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.rivals.environment import Prepared, RivalError

WORKERS = Path(__file__).parent / "workers"
# Converting a model, or compiling a grammar, may take minutes.
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Answer:
    """One list.

    Attributes:
        seconds: wall-clock time of the search.
        processor_seconds: of all threads of the process.
        identifiers: token ids, best first; where a system knows no catalog, whatever it wrote.
    """

    seconds: float
    processor_seconds: float
    identifiers: tuple[tuple[int, ...], ...]


class RivalProcess:
    """A worker with one model loaded in one way."""

    def __init__(self, name: str, worker: str, prepared: Prepared, spec: Mapping[str, Any], log: Path) -> None:
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = str(spec["threads"])
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        command = [str(prepared.python), "-P", str(WORKERS / "serve.py"), str(WORKERS / worker), json.dumps(dict(spec))]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **offline, **limits, **prepared.variables},
            )

    def wait_ready(self) -> None:
        """Wait until the worker has loaded its model.

        Raises:
            RivalError: it died, or took too long.
        """
        self._receive()

    def ask(self, prompt: list[int], k: int, more: Mapping[str, Any]) -> Answer:
        """Search one list.

        Raises:
            RivalError: as `wait_ready`.
        """
        try:
            print(json.dumps({"prompt": prompt, "k": k, **more}), file=self._stream(self._process.stdin), flush=True)
        except BrokenPipeError as error:
            raise RivalError(self._ending("ended")) from error
        told = self._receive()
        return Answer(told["seconds"], told["processor_seconds"], tuple(map(tuple, told["identifiers"])))

    def _receive(self) -> Any:
        answers = self._stream(self._process.stdout)
        if not select.select([answers], [], [], PATIENCE_SECONDS)[0]:
            raise RivalError(self._ending(f"said nothing for {PATIENCE_SECONDS:.0f} seconds"))
        if not (line := answers.readline()):
            raise RivalError(self._ending("ended"))
        return json.loads(line)

    def _stream(self, stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream

    def _ending(self, what: str) -> str:
        said = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if any(map(str.isalnum, line))]
        return f"{self.name} is left out: its process {what}" + (f", and {self._log} ends with: {said[-1]}" if said else ".")

    def close(self) -> None:
        """End the process; it holds nothing that would need an orderly end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
