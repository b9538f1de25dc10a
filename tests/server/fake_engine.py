"""An engine without a model: every request takes the same number of steps; slots and tokens are counted as the real one does."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from drafting.array_types import IntArray
from drafting.beam.rule import STRICT, Normalisation, SearchRule, Tolerance
from drafting.catalog.catalog import Catalog
from drafting.plans.costs import CostCurve
from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_set import ItemSet
from verification.blend import Blend
from verification.hosts.graphs import GraphCounts
from verification.request import BeamRequest, PromptTokens, ReservedPlaces, Think, item_indices
from verification.result import BeamResult, RankedItem, StepReport, Usage
from verification.search import NOTHING

STEPS = 3


class FakeSlots:
    """The slots of a `FakeEngine`: those of nodes are taken with the prompt's."""

    def __init__(self, engine: "FakeEngine") -> None:
        self._engine = engine

    def has_room(self, needed: tuple[int, int], freed: Iterable[tuple[int, int]] = ()) -> bool:
        return needed[0] <= self._engine.total_slots - self._engine.used_slots + sum(slots for slots, _ in freed)


class FakeEngine:
    """A `server.scheduling.step_engine.StepEngine`; every request runs for `STEPS` steps, more where its levels are cut, and owns as many
    slots as its prompt and beams.
    """

    def __init__(self, total_slots: int = 100) -> None:
        self.total_slots = total_slots
        self.slots = FakeSlots(self)
        self.cached_slots = 0
        self.running: dict[str, tuple[BeamRequest, int]] = {}
        self.cut: dict[str, int] = {}
        self.added: list[str] = []
        self.forgotten: list[str] = []
        self.rules: dict[str, SearchRule] = {}
        self.keys: dict[str, str | None] = {}
        self.forwards: list[int] = []
        self.broken = False
        self.not_finite: set[str] = set()
        self.plan = FixedPlan.parse("none")

    @property
    def used_slots(self) -> int:
        return sum(self.slots_needed(request) for request, _ in self.running.values())

    def fits(self, request: BeamRequest) -> bool:
        return self.slots_needed(request) <= self.total_slots

    def has_room(self, request: BeamRequest, ended: Sequence[BeamRequest] = ()) -> bool:
        return self.slots.has_room(self.needs(request), map(self.needs, ended))

    def needs(self, request: BeamRequest) -> tuple[int, int]:
        return self.slots_needed(request), 0

    def refusal(self, request: BeamRequest) -> str | None:
        return self.plan.refusal(request.beam_width)

    def slots_needed(self, request: BeamRequest) -> int:
        return len(request.prompt) + level_nodes(request) * (STEPS - 1)

    def steps_needed(self, request: BeamRequest) -> int:
        return STEPS

    def tokens_needed(self, request: BeamRequest) -> int:
        return len(request.prompt)

    def next_tokens(self, most_nodes: int | None = None) -> int:
        return sum(self._tokens(request, done, most_nodes) for request, done in self.running.values())

    def _tokens(self, request: BeamRequest, done: int, most_nodes: int | None) -> int:
        left = level_nodes(request) - self.cut.get(request.request_id, 0)
        return len(request.prompt) if done == 0 else left if most_nodes is None else min(most_nodes, left)

    def add(self, request: BeamRequest) -> None:
        assert request.request_id not in self.running
        assert self.has_room(request)
        self.running[request.request_id] = (request, 0)
        self.added.append(request.request_id)
        self.rules[request.request_id] = request.rule
        self.keys[request.request_id] = request.cache_key

    def forget(self, cache_key: str) -> None:
        self.forgotten.append(cache_key)

    def drop_draft(self) -> None:
        """There is none."""

    def close(self) -> None:
        """Holds nothing."""

    def cancel(self, request_id: str) -> bool:
        self.cut.pop(request_id, None)
        return self.running.pop(request_id, None) is not None

    def step(self, *, scored_nodes: int | None = None, most_nodes: int | None = None) -> StepReport:
        if self.broken:
            raise RuntimeError("the kernel failed")
        tokens = self.next_tokens(most_nodes)
        self.forwards.append(tokens)
        for request_id, (request, done) in self.running.items():
            computed = self.cut.pop(request_id, 0) + self._tokens(request, done, most_nodes)
            if done and computed < level_nodes(request):
                self.cut[request_id] = computed
            else:
                self.running[request_id] = request, done + 1
        ended = [request for request, done in self.running.values() if done == self.steps_needed(request)]
        failed = tuple(self.running.keys() & self.not_finite)
        for request_id in (*failed, *(request.request_id for request in ended)):
            self.cancel(request_id)
        return StepReport(tuple(result(request) for request in ended), tokens, 0.001, 0.0005, 3, 1, 0.0002, failed=failed)


def level_nodes(request: BeamRequest) -> int:
    """Nodes of a level, of both searches where places are reserved; a step cuts them together."""
    return request.beam_width * (1 if request.reserved is None else 2)


def result(request: BeamRequest) -> BeamResult:
    items = tuple(RankedItem(item, -float(item), item + 1) for item in range(request.k))
    usage = Usage(len(request.prompt), 0, STEPS, 2, drafted_nodes=9, used_by={"beam": 4}, accepted_depths=(1, 2), plan="auto:beam")
    return BeamResult(request.request_id, items, usage, request.rule)


class FakeSource:
    """A stand-in for `verification.recommender.Recommender`; a history is its own prompt."""

    def __init__(self, catalog: Catalog, engine: FakeEngine | None = None, name: str = "") -> None:
        self.catalog = catalog
        self.engine = engine or FakeEngine()
        self.name = name
        self.target_cost = CostCurve(0.001, 0.0001)

    def take_graph_counts(self) -> GraphCounts:
        return GraphCounts()

    def sample(self, items: Sequence[int]) -> Sequence[int]:
        return items

    def request(
        self,
        request_id: str,
        history: Sequence[int] | PromptTokens,
        k: int,
        beam_width: int | None = None,
        excluded_items: Sequence[int] = (),
        rule: SearchRule = STRICT,
        cache_key: str | None = None,
        allowed_items: ItemSet | None = None,
        reserved: ReservedPlaces | None = None,
        think: int = 0,
        blend: Blend | None = None,
        beam_widths: Sequence[int] | None = None,
        diversity: Mapping[str, int] | None = None,
        retrieved: IntArray = NOTHING,
        tolerance: Tolerance | None = None,
        normalise: Normalisation | None = None,
        explain: int | None = None,
    ) -> BeamRequest:
        assert blend is beam_widths is normalise is explain is None
        tokens = history.tokens if isinstance(history, PromptTokens) else history
        prompt, excluded = (item_indices(items, len(self.catalog), "It names") for items in (tokens, excluded_items))
        thinking = Think(think, np.array([1])) if think else None
        return BeamRequest(
            request_id,
            prompt,
            k,
            beam_width or k,
            excluded,
            rule,
            cache_key,
            allowed_items,
            self.name,
            reserved,
            think=thinking,
            caps=self.catalog.caps(diversity or {}),
            tolerance=tolerance,
            retrieved=retrieved,
        )

    def successor(self, catalog: Catalog, name: str) -> "FakeSource":
        return FakeSource(catalog, name=name)


def make_request(request_id: str, tokens: int = 4, k: int = 2) -> BeamRequest:
    return BeamRequest(request_id, np.arange(tokens), k, k)
