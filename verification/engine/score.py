"""Scores: log-probabilities of the candidates that requests name, in place of lists.

Invariant: a request keeps its prompt from its first step to its last, and the prefixes of a part of its candidates for one step. The caller
says how many are computed in a step, so that scores of many candidates leave room for the lists of others; which ones share a step changes
nothing but rounding. Each request that runs gets at least one candidate a step, so all come to an end.
"""

from dataclasses import dataclass, field

import numpy as np

from drafting.array_types import FloatArray, IntArray
from verification.engine.candidates import CandidateTree
from verification.result import BeamResult
from verification.scored import Scored
from verification.search import BeamSearch
from verification.slots.engine_slots import EngineSlots


@dataclass(eq=False)
class RunningScores:
    """A request's scores so far.

    Attributes:
        search: its prompt and its cost; it has no beam but the root.
        log_probs: `[identifiers]` float32, of which the first `first` are known.
        end: end of the candidates that the step computes.
    """

    search: BeamSearch
    scored: Scored
    log_probs: FloatArray = field(init=False)
    first: int = 0
    end: int = 0

    def __post_init__(self) -> None:
        self.log_probs = np.empty(len(self.scored.paths), np.float32)

    @property
    def paths(self) -> IntArray:
        """The candidates that the step computes."""
        return self.scored.paths[self.first : self.end]


class ScoreStep:
    """The requests for scores of an engine.

    Attributes:
        nodes: prefixes of candidates in the newest forward.
    """

    def __init__(self, slots: EngineSlots, candidates: CandidateTree) -> None:
        self._slots = slots
        self._candidates = candidates
        self._running: dict[str, RunningScores] = {}
        self.nodes = 0

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._running

    def begin(self, search: BeamSearch, scored: Scored) -> None:
        """Score candidates from the next step on."""
        self._running[search.request.request_id] = RunningScores(search, scored)

    def remove(self, request_id: str) -> list[BeamSearch]:
        """Forget a request and return its search; none if no such request runs."""
        running = self._running.pop(request_id, None)
        return [] if running is None else [running.search]

    @property
    def uncomputed(self) -> int:
        """Tokens of their prompts in the next forward."""
        return sum(running.search.sequence.uncomputed for running in self._running.values())

    def grow(self, nodes: int | None) -> list[BeamSearch]:
        """Add the prefixes of the next candidates to the trees, about `nodes` in all, or as many as fit; return the searches."""
        self.nodes = 0
        for number, running in enumerate(self._running.values()):
            share = running.scored.nodes
            if nodes is not None:
                # What one request has no use for is left to those behind it.
                share = min(share, nodes // (len(self._running) - number))
            running.end = running.scored.end(running.first, share)
            self._candidates.grow(running.search.sequence, running.paths)
            added = running.search.sequence.nodes
            self.nodes += added
            if nodes is not None:
                nodes = max(0, nodes - added)
        return [running.search for running in self._running.values()]

    def take(self) -> tuple[tuple[BeamResult, ...], list[str]]:
        """Keep what a forward says of its candidates, and release their nodes.

        Returns:
            the scores of requests whose candidates are all scored, and the ids of requests for which the target's logits are not finite;
            both are to be removed.
        """
        grown = [(running.search.sequence, running.paths) for running in self._running.values()]
        finished, failed = [], []
        for running, log_probs in zip(self._running.values(), self._candidates.log_probs(grown), strict=True):
            search = running.search
            running.log_probs[running.first : running.end] = log_probs
            running.first = running.end
            sequence = search.sequence
            self._slots.nodes.release(sequence.slots[sequence.prompt_length :])
            sequence.resize_prompt(sequence.prompt_length)
            sequence.computed = sequence.length
            if np.isnan(log_probs).any():
                failed.append(search.request.request_id)
            elif running.end == len(running.scored.paths):
                scores = running.log_probs[running.scored.rows].tobytes()
                finished.append(BeamResult(search.request.request_id, (), search.usage("none"), scores=scores))
        return tuple(finished), failed
