"""The report of `make bench-gpu`: what was measured, on what device, and which trace the acceptance came from.

Invariant: the text says that weights are random and that acceptance is replayed from a trace, so that no figure is quoted without that.
"""

import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import torch
import transformers

from benchmarks.gpu.promises import judge_promises
from benchmarks.gpu.timing import COLUMNS, Timing, timing_cells
from benchmarks.markdown import markdown_table


def machine(device: torch.device) -> str:
    """The device and what runs it, in words."""
    software = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if device.type != "cuda":
        return f"{_processor()}, {torch.get_num_threads()} threads, {software}"
    card = torch.cuda.get_device_properties(device)
    return f"{card.name} ({card.total_memory / 2**30:.0f} GiB), driver {_driver()}, CUDA {torch.version.cuda}, {software}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _driver() -> str:
    """The NVIDIA driver's version, if its tool is there to say it."""
    if not (tool := shutil.which("nvidia-smi")):
        return "unknown"
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().partition("\n")[0] or "unknown"


@dataclass(frozen=True)
class Report:
    """A finished run.

    Attributes:
        notes: sentences on what was left out.
        trace: what the acceptance trace was recorded from.
    """

    timings: Sequence[Timing]
    notes: Sequence[str]
    trace: str
    machine: str
    command: str
    day: str = field(default_factory=lambda: str(date.today()))

    def markdown(self) -> str:
        """The report as text."""
        lines = [
            f"{self.machine}. {self.day}. `{self.command}`",
            "",
            f"Weights are random; which drafts held was not measured but taken from an acceptance trace ({self.trace}), and so is what was "
            "drafted: what a planner takes to decide and to learn is in no time. Times are from adding a batch's requests to its last "
            "list, without cached histories; speed-ups are over plain beam search (none) of the same engine. Forwards and tokens of the "
            "target are means per request; beside the tokens stands what the recorded searches would have computed with this prompt.",
            "",
            markdown_table(COLUMNS, map(timing_cells, self.timings)),
        ]
        sentences = [f"* {sentence}" for sentence in (*judge_promises(self.timings), *self.notes)]
        return "\n".join([*lines, *(["", *sentences] if sentences else [])]) + "\n"

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")
