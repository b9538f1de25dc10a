"""Turns: every entrant answers the same prompt, one after the other, round after round, so that a drifting machine drifts for all.

Invariant: one process works at a time, and all entrants are asked equally often in the rounds that count. An entrant so slow that its share
of the time is used up is asked less often, and its row says how few lists it is of.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.rivals.entrants import Entrant
from benchmarks.rivals.environment import RivalError
from benchmarks.rivals.process import Answer, RivalProcess
from benchmarks.rotation import in_turn
from benchmarks.systems.interleaved import SETTLE_SECONDS

# So many seconds of lists of one length, and one that has answered the fewest lists is asked no more.
SHARE_SECONDS = 20.0
FEWEST = 3
# A processor that has just slept is slow for some milliseconds: who is fast answers a list before that which counts.
FAST_SECONDS = 3.0


@dataclass(frozen=True)
class Row:
    """One line of a report; times are milliseconds a list.

    Attributes:
        p50_ms, p90_ms: of the clock.
        processor_ms: median of the processor time of all threads.
        lists: how many were counted.
        complete: lists of k distinct identifiers that are all in the catalog.
        shortest: identifiers of the catalog in the list that has fewest of them.
        equal: lists that are those of `against`, to the order; None where these were not made.
        compared: how many lists both have made, which `equal` is of; 0 where that is None.
    """

    entrant: str
    asked: str
    k: int
    p50_ms: float
    p90_ms: float
    processor_ms: float
    lists: int
    complete: int
    shortest: int
    against: str | None
    equal: int | None
    compared: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def race(
    processes: Mapping[Entrant, RivalProcess],
    prompts: Sequence[list[int]],
    k: int,
    warm_up: int,
    progress: Callable[[int], object],
    tell: Callable[[str], None],
) -> dict[Entrant, list[Answer]]:
    """Ask every entrant for k identifiers after every prompt, in turns; the first `warm_up` prompts count for nothing.

    An entrant that fails is told of and left out from then on.
    """
    answers: dict[Entrant, list[Answer]] = {entrant: [] for entrant in processes if entrant.longest is None or k <= entrant.longest}
    spent = dict.fromkeys(answers, 0.0)
    running = list(answers)
    for turn, prompt in enumerate(prompts):
        for entrant in in_turn(running, turn):
            time.sleep(SETTLE_SECONDS)
            try:
                answer = _ask(processes[entrant], entrant, prompts[turn - 1], prompt, k, spent[entrant] < FAST_SECONDS * turn)
            except RivalError as error:
                tell(str(error))
                running.remove(entrant)
                continue
            spent[entrant] += answer.seconds
            if turn >= warm_up:
                answers[entrant].append(answer)
            if spent[entrant] > SHARE_SECONDS and len(answers[entrant]) >= FEWEST:
                running.remove(entrant)
        progress(1)
    return {entrant: found for entrant, found in answers.items() if found}


def _ask(process: RivalProcess, entrant: Entrant, before: list[int], prompt: list[int], k: int, is_fast: bool) -> Answer:
    if is_fast:
        process.ask(before, k, entrant.ask)
    return process.ask(prompt, k, entrant.ask)


def rows(answers: Mapping[Entrant, Sequence[Answer]], k: int, catalog: frozenset[tuple[int, ...]]) -> list[Row]:
    """What was measured at one k, an entrant a row."""
    by_label = {entrant.label: found for entrant, found in answers.items()}
    made = []
    for entrant, found in answers.items():
        known = [len(catalog.intersection(answer.identifiers)) for answer in found]
        # One that is slower has made fewer lists, of the first prompts.
        reference = by_label.get(entrant.against or "")
        milliseconds = 1e3 * np.array([answer.seconds for answer in found])
        equal = None
        if reference is not None:
            equal = sum(one.identifiers == other.identifiers for one, other in zip(found, reference, strict=False))
        made.append(
            Row(
                entrant.label,
                entrant.asked,
                k,
                float(np.median(milliseconds)),
                float(np.percentile(milliseconds, 90)),
                1e3 * float(np.median([answer.processor_seconds for answer in found])),
                len(found),
                sum(number == k == len(answer.identifiers) for number, answer in zip(known, found, strict=True)),
                min(known),
                entrant.against if reference is not None else None,
                equal,
                0 if reference is None else min(len(found), len(reference)),
            )
        )
    return made
