"""What a list costs compared with what no engine can do without: our hosts, `generate` and the floors of a search's forwards in turns."""

import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.markdown import markdown_table
from benchmarks.rotation import in_turn
from benchmarks.systems.floors import BARE, PRODUCTS, BareForwards, Floor, ProductsAlone
from benchmarks.systems.histories import random_histories
from benchmarks.systems.interleaved import SETTLE_SECONDS, SystemProcess
from benchmarks.systems.question import Outcome, Question, System, SystemSpec
from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint
from benchmarks.systems.systems import make_system

GENERATE = "transformers"
HEADS = (
    "beam width",
    "system",
    "ms",
    "times the bare forwards",
    "times the products alone",
    "generate takes so many times as long",
    "lists equal to generate's",
)
WARM_UP = 2
FLOORS: dict[str, type[Floor]] = {BARE: BareForwards, PRODUCTS: ProductsAlone}


def make(spec: SystemSpec) -> System:
    """Load what `spec` names, floors among it."""
    return FLOORS[spec.name](spec) if spec.name in FLOORS else make_system(spec)


def run(shape: str, widths: Sequence[int], requests: int, generated: int, threads: int) -> str:
    """The table of a shape's random model, lists as long as their beams are wide.

    Args:
        requests: timed histories.
        generated: how many of them `generate` is asked, too.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, catalog = Path(name), make_catalog(SHAPES[shape])
        catalog.save(folder / "catalog.jsonl")
        make_checkpoint(folder / "target", SHAPES[shape].target, catalog)
        hosts = ["atspeed/transformers", *(["atspeed/vllm"] if find_spec("vllm") else [])]
        names = [*hosts, *FLOORS, *([GENERATE] if generated else [])]
        systems = []
        try:
            for each in names:
                systems.append(SystemProcess(SystemSpec(each, folder / "target", folder / "catalog.jsonl", threads), make))
                systems[-1].wait_ready()
            histories = random_histories(len(catalog), requests + WARM_UP)
            rows = [row for width in widths for row in _rows(width, systems, histories, generated)]
        finally:
            for system in systems:
                system.close()
    return markdown_table(HEADS, rows)


def _rows(width: int, systems: Sequence[SystemProcess], histories: Sequence[list[int]], generated: int) -> list[tuple[str, ...]]:
    """Ask all systems by turns and return a row for each."""
    outcomes: dict[str, list[Outcome]] = {system.name: [] for system in systems}
    for turn, history in enumerate(tqdm(histories, desc=f"width {width}")):
        for system in in_turn(systems, turn):
            if system.name == GENERATE and turn >= WARM_UP + generated:
                continue
            time.sleep(SETTLE_SECONDS)
            # A processor that has just slept is slow for some milliseconds, which only those notice that take few.
            before = [] if system.name == GENERATE else [histories[turn - 1]]
            outcomes[system.name] += system.search(Question([*before, history], width))[-1:]
    ms = {name: 1e3 * float(np.median([outcome.seconds for outcome in found[WARM_UP:]])) for name, found in outcomes.items()}
    return [
        (
            str(width),
            name,
            f"{ms[name]:.1f}",
            *(f"{ms[name] / ms[floor]:.2f}" for floor in FLOORS),
            f"{ms[GENERATE] / ms[name]:.1f}" if GENERATE in ms else "",
            "" if name in (*FLOORS, GENERATE) else _equal(outcomes[name], outcomes.get(GENERATE, [])),
        )
        for name in ms
    ]


def _equal(ours: Sequence[Outcome], expected: Sequence[Outcome]) -> str:
    equal = sum(own.identifiers == right.identifiers for own, right in zip(ours, expected, strict=False))
    return f"{equal}/{len(expected)}"
