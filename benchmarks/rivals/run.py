"""A run of `atspeed-bench rivals`: make environments and models, load who takes part, time them in turns, and keep what is measured.

Invariant: a rival that cannot take part costs a sentence, never the run; every process is ended; and what an interrupted run has measured
of one list length is kept, where its report is written to a file.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.rivals.entrants import Entrant
from benchmarks.rivals.environment import Prepared, RivalError, prepare
from benchmarks.rivals.process import RivalProcess
from benchmarks.rivals.turns import Row, race, rows
from benchmarks.systems.histories import random_histories
from benchmarks.systems.interleaved import BUSY_SHARE, busy_share
from benchmarks.systems.prompt_builder import prompt_builder
from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from verification.hosts.checkpoint import load_config, load_tokenizer


@dataclass(frozen=True)
class Models:
    """The models and the catalog that all rivals are measured with.

    Attributes:
        work: folder for what rivals make of the models; it is kept.
        digest: another one for other files.
    """

    name: str
    target: Path
    draft: Path
    catalog: Path
    work: Path
    digest: str


@dataclass(frozen=True)
class Settings:
    """How they are asked.

    Attributes:
        histories: counted; `warm_up` more come first.
        items: of a history.
        sources: by rival, where its repository is read from instead of its own address.
    """

    ks: tuple[int, ...]
    histories: int
    warm_up: int
    items: int
    threads: int
    sources: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {"k": list(self.ks), "lists": self.histories, "warm_up": self.warm_up, "items": self.items, "threads": self.threads}


@dataclass
class Report:
    """The rows that are measured so far, and under which conditions.

    Attributes:
        conditions: models, settings and machine; a report of other ones is not gone on with.
        busy: share of the processors that other work took when each list length began.
    """

    conditions: dict[str, Any]
    rows: list[Row]
    busy: dict[int, float]
    left_out: list[str]

    @classmethod
    def start(cls, conditions: dict[str, Any], path: Path | None) -> "Report":
        """The report that a file holds of these very conditions, or an empty one."""
        if path is not None and path.is_file():
            told = json.loads(path.read_bytes())
            if told.get("conditions") == conditions:
                busy = {int(k): share for k, share in told["busy"].items()}
                return cls(conditions, [Row(**row) for row in told["rows"]], busy, told["left_out"])
        return cls(conditions, [], {}, [])

    def save(self, path: Path) -> None:
        told = {"conditions": self.conditions, "rows": [row.as_dict() for row in self.rows], "busy": self.busy, "left_out": self.left_out}
        path.write_text(json.dumps(told, indent=2) + "\n")

    @property
    def was_busy(self) -> bool:
        """True if other work took part of the machine."""
        return any(share > BUSY_SHARE for share in self.busy.values())


def measure(
    models: Models, chosen: Sequence[Entrant], settings: Settings, cache: Path, path: Path | None, tell: Callable[[str], None]
) -> Report:
    """Time the entrants in turns at each list length that the report in `path` does not have yet."""
    conditions = {
        "models": models.name,
        "files": models.digest,
        "entrants": [entrant.label for entrant in chosen],
        **settings.as_dict(),
        "machine": machine(),
        "date": str(date.today()),
    }
    report = Report.start(conditions, path)
    missing = [k for k in settings.ks if k not in report.busy]
    if not missing:
        return report
    report.left_out.clear()

    def leave_out(sentence: str) -> None:
        report.left_out.append(sentence)
        tell(sentence)

    catalog, tokenizer = load_catalog(models.catalog), load_tokenizer(models.target)
    identifiers: IntArray = catalog.token_ids(tokenizer.get_vocab())
    known = frozenset(map(tuple, identifiers.tolist()))
    models.work.mkdir(parents=True, exist_ok=True)
    np.save(models.work / "identifiers.npy", identifiers)
    prompts = _prompts(models, catalog, settings)
    with ExitStack() as running:
        processes = _start(models, chosen, settings, cache, running, leave_out)
        for k in missing:
            busy = busy_share()
            with tqdm(total=len(prompts), desc=f"K = {k}", unit="turn") as bar:
                report.rows += rows(race(processes, prompts, k, settings.warm_up, bar.update, leave_out), k, known)
            report.busy[k] = round(busy, 2)
            if path is not None:
                report.save(path)
    return report


def _prompts(models: Models, catalog: Catalog, settings: Settings) -> list[list[int]]:
    builder = prompt_builder(models.target, catalog)
    histories = random_histories(len(catalog), settings.warm_up + settings.histories, settings.items)
    return [builder.build(history).tolist() for history in histories]


def _start(
    models: Models,
    chosen: Sequence[Entrant],
    settings: Settings,
    cache: Path,
    running: ExitStack,
    leave_out: Callable[[str], None],
) -> dict[Entrant, RivalProcess]:
    """A process for each way of loading, one after the other: a planner that measures the machine must not measure its neighbours."""
    family = load_config(models.target).model_type
    base = {
        "target": str(models.target),
        "draft": str(models.draft),
        "catalog": str(models.catalog),
        "identifiers": str(models.work / "identifiers.npy"),
        "work": str(models.work),
        "threads": settings.threads,
    }
    prepared: dict[str, Prepared | None] = {}
    started: dict[tuple[str, ...], RivalProcess | None] = {}
    for entrant in tqdm(chosen, desc="Loading", unit="form"):
        rival, key = entrant.rival, entrant.process_key
        if key in started:
            continue
        started[key] = None
        try:
            if rival.families and family not in rival.families:
                raise RivalError(f"{entrant.label} is left out: it has no models of the type {family}.")
            if entrant.needs is not None and find_spec(entrant.needs) is None:
                raise RivalError(f"{entrant.label} is left out: {entrant.needs} is not installed.")
            if rival.name not in prepared:
                prepared[rival.name] = None
                prepared[rival.name] = prepare(rival.name, rival.environment, cache, settings.sources.get(rival.name), tqdm.write)
            if (environment := prepared[rival.name]) is None:
                continue
            log = models.work / "logs" / f"{'-'.join(key).replace('/', '-')}.log"
            process = RivalProcess(entrant.label, rival.worker, environment, base | dict(entrant.load), log)
            running.callback(process.close)
            process.wait_ready()
        except RivalError as error:
            leave_out(str(error))
            continue
        started[key] = process
    return {entrant: there for entrant in chosen if (there := started[entrant.process_key]) is not None}


def machine() -> str:
    """The processor, how many of them are usable, and what it has for half precision."""
    told = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    fields = dict(line.partition(":")[::2] for line in told if ":" in line)
    by_name = {name.strip(): value.strip() for name, value in fields.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if flag in by_name.get("flags", "").split()]
    return f"{by_name.get('model name', platform.machine())}, {len(os.sched_getaffinity(0))} cores, {' '.join(flags)}"
