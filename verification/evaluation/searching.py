"""Searches and timings of an evaluation.

Invariant: lists, forwards and accepted steps are counted in full batches. Times are measured one request at a time, with the modes taking
turns on the same user, in random order, so a change of the machine's speed affects all modes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drafting.array_types import DoubleArray
from drafting.beam.rule import STRICT, Normalisation, SearchRule, Verification
from drafting.catalog.catalog import Catalog
from drafting.errors import MODEL_ERRORS, SetupError, first_line
from drafting.model_files import ModelFiles
from drafting.neighbours.candidates import Blending
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Plan
from drafting.prompts.user_state import UserState
from verification.evaluation.generate import PrefixTable, generate_beams
from verification.hosts.adapter import load_model_config, load_reference
from verification.hosts.checkpoint import load_tokenizer, resolve_dtype
from verification.recommender import Recommender
from verification.result import BeamResult, Usage

NO_PLAN = FixedPlan.parse("none")
WARM_UP = 3


@dataclass(frozen=True)
class Beam:
    """How many prefixes a search keeps.

    Attributes:
        width: at every level, or at the widest.
        widths: at each level but the last; none for `width` at all of them.
    """

    width: int
    widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Mode:
    """A search mode on one recommender.

    Attributes:
        draft: name of the draft, empty without a draft.
        name: `plain`, the name of the verification rule, or `blend` with its weight.
        blend: how lists are blended; None for the target's own.
    """

    draft: str
    name: str
    plan: Plan
    rule: SearchRule = STRICT
    blend: Blending | None = None

    def beam(self, k: int, strict: Beam) -> Beam:
        """The beam of lists of k, where strict lists have `strict`."""
        return strict if self.rule.verification is Verification.STRICT else Beam(k)

    def lists(
        self, recommender: Recommender, users: Iterable[UserState], k: int, strict: Beam, excluded: Iterable[Sequence[int]] | None
    ) -> Iterator[BeamResult]:
        """Every user's list, with this mode's plan; `strict` is the beam of strict lists, `excluded` what each list leaves out."""
        recommender.engine.use_plan(self.plan)
        beam = self.beam(k, strict)
        width, widths = (None, beam.widths) if beam.widths else (beam.width, None)
        return recommender.recommend(users, k, width, excluded, self.rule, blend=self.blend, beam_widths=widths)


@dataclass(frozen=True)
class Found:
    """The lists of users: all items, the first item of each rank, and the usage of each search."""

    lists: list[list[int]]
    ranked: list[list[int]]
    usage: list[Usage]


def search_all(
    recommender: Recommender,
    mode: Mode,
    users: Iterable[UserState],
    k: int,
    beam: Beam,
    advance: Callable[[int], object],
    excluded: Sequence[Sequence[int]] | None = None,
) -> Found:
    """Search for every user in full batches; see `Mode.lists`."""
    found = Found([], [], [])
    for result in mode.lists(recommender, users, k, beam, excluded):
        found.lists.append([item.item for item in result.items])
        found.ranked.append([item.item for item in result.firsts])
        found.usage.append(result.usage)
        advance(1)
    return found


def time_modes(
    recommender: Recommender,
    modes: Sequence[Mode],
    users: Sequence[UserState],
    k: int,
    beam: Beam,
    excluded: Sequence[Sequence[int]] | None = None,
) -> list[DoubleArray]:
    """Seconds per user of each mode, `[modes][users]`, one request at a time and the modes in turn, in random order; see `Mode.lists`."""
    seconds: list[list[float]] = [[] for _ in modes]
    rng = np.random.default_rng(0)
    asked = list(zip(users, excluded or [()] * len(users), strict=True))
    for user, without in [*asked[:WARM_UP], *asked]:
        # In random order: what one mode leaves in the processor's caches is felt by the one behind it.
        for mode in rng.permutation(len(modes)).tolist():
            started = time.perf_counter()
            for _ in modes[mode].lists(recommender, [user], k, beam, [without]):
                seconds[mode].append(time.perf_counter() - started)
    return [np.array(times[min(WARM_UP, len(users)) :]) for times in seconds]


class GenerateError(SetupError):
    """transformers' `generate` can't search with a model; the message is a sentence."""


class GenerateLists:
    """Constrained decoding by transformers' `generate` on the same checkpoint, with a `prefix_allowed_tokens_fn` of the catalog."""

    def __init__(self, target: ModelFiles, catalog: Catalog, recommender: Recommender, dtype: str = "auto") -> None:
        """Load the model on the recommender's device; `dtype` is as for `Recommender.load`."""
        identifiers = catalog.token_ids(load_tokenizer(target.tokenizer).get_vocab())
        self._prompts = recommender.prompts
        self._depth = catalog.identifier_length
        self._table = PrefixTable(identifiers)
        over = recommender.engine.normalise
        self._over = {"renormalise": over is Normalisation.CHILDREN, "by_level": over is Normalisation.LEVEL}
        self._items: dict[tuple[int, ...], list[int]] = {}
        for item, identifier in enumerate(map(tuple, identifiers.tolist())):
            self._items.setdefault(identifier, []).append(item)
        model = load_reference(target, resolve_dtype(load_model_config(target), dtype))
        self._model: Any = model.to(recommender.engine.target.device)

    def search(
        self, users: Sequence[UserState], k: int, beam_width: int, excluded: Sequence[Sequence[int]] | None = None
    ) -> tuple[list[list[int]], DoubleArray]:
        """The lists, the best k of a search of `beam_width`, as the first item of each identifier that is not excluded; and the seconds
        per list.

        Raises:
            GenerateError: transformers can't search with this model, as with a T5 whose decoder has more layers than its encoder.
        """
        lists, seconds = [], []
        asked = list(zip(users, excluded or [()] * len(users), strict=True))
        for user, without in [*asked[:WARM_UP], *asked]:
            prompt, table, seen = self._prompts.build(user), self._table.without(without), set(without)
            started = time.perf_counter()
            try:
                sequences, _ = generate_beams(self._model, prompt[None], table, beam_width, self._depth, **self._over)
            except MODEL_ERRORS as error:
                raise GenerateError(f"transformers' own search ends in {type(error).__name__} ({first_line(error)}).") from error
            seconds.append(time.perf_counter() - started)
            lists.append([next(item for item in self._items[tuple(row)] if item not in seen) for row in sequences[:k].tolist()])
        skipped = min(WARM_UP, len(users))
        return lists[skipped:], np.array(seconds[skipped:])
