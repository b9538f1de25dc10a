"""How rounds begin: requests that stand alike are decided on together, and share what drafting costs as long as they draft; and what the
draft computes of prompts that are shared."""

from dataclasses import dataclass, field

import numpy as np

from drafting.array_types import BoolArray, FloatArray
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Action, DraftRound
from drafting.trie.item_set import ItemSet
from tests.speculation import Speculation
from verification.engine.engine import SpeculativeBeamEngine
from verification.request import BeamRequest, ReservedPlaces
from verification.search import NOTHING


@dataclass(frozen=True)
class Spy(FixedPlan):
    """A fixed plan that notes what it is asked.

    Attributes:
        quitters: of so many rounds it keeps nothing of what the draft proposes.
        undrafted: for so many searches it drafts nothing.
    """

    alike: bool = True
    quitters: int = 0
    undrafted: int = 0
    begun: list[str | None] = field(default_factory=list)
    asked: list[tuple[int, int, int]] = field(default_factory=list)
    widths: list[DraftRound] = field(default_factory=list)
    uncomputed: list[float] = field(default_factory=list)

    @property
    def decides_by_group(self) -> bool:
        return self.alike

    def drafts_for(self, key: str | None) -> bool:
        self.begun.append(key)
        return len(self.begun) > self.undrafted

    def action(self, state: DraftRound, has_draft: bool) -> Action:
        self.uncomputed.append(state.uncomputed())
        self.asked.append((state.levels, state.group_size, state.sharing))
        return super().action(state, has_draft)

    def width(self, state: DraftRound, scores: FloatArray | None, new: BoolArray | None) -> int:
        self.widths.append(state)
        return 0 if len(self.widths) <= self.quitters else super().width(state, scores, new)


def step(speculation: Speculation, plan: Spy) -> list[tuple[int, int, int]]:
    """What the plan is asked in the first step of three requests that stand alike and one that is wider."""
    engine = speculation.engine(4, plan)
    prompt = np.concatenate([[1], speculation.identifiers[:5].reshape(-1)])
    for number, k in enumerate((5, 5, 9, 5)):
        engine.add(BeamRequest(str(number), prompt, k, k))
    engine.step()
    for number in range(4):
        engine.cancel(str(number))
    return plan.asked


def test_those_who_stand_alike_are_asked_once_to_begin_and_then_each(speculation: Speculation) -> None:
    asked = step(speculation, Spy("beam:20", 20))
    assert asked[:2] == [(0, 3, 4), (0, 1, 4)]
    assert sorted(asked[2:6]) == [(1, 1, 4), (1, 3, 4), (1, 3, 4), (1, 3, 4)]


def test_a_plan_that_decides_for_each_is_asked_for_each(speculation: Speculation) -> None:
    asked = step(speculation, Spy("beam:20", 20, alike=False))
    assert asked[:4] == [(0, 1, 4)] * 4


def test_those_who_are_not_drafted_for_share_the_forward_all_the_same(speculation: Speculation) -> None:
    plan = Spy("beam:20", 20, undrafted=1)
    assert step(speculation, plan)[:2] == [(0, 2, 4), (0, 1, 4)]


def test_who_has_stopped_shares_no_more(speculation: Speculation) -> None:
    asked = step(speculation, Spy("beam:20", 20, quitters=2))
    assert sorted(asked[2:4]) == [(1, 1, 4), (1, 1, 4)]


def test_each_goes_on_with_a_round_of_its_own(speculation: Speculation) -> None:
    plan = Spy("beam:20", 20)
    step(speculation, plan)
    assert len({id(state) for state in plan.widths[:4]}) == 4


def test_all_children_are_those_that_a_request_may_be_given(speculation: Speculation) -> None:
    """One request with a filter, one with exclusions, one with both, one with neither, in one step."""
    engine, trie, rng = speculation.engine(3, "trie"), speculation.tries[3], np.random.default_rng(0)
    prompt = np.concatenate([[1], speculation.identifiers[:5].reshape(-1)])
    eligible = {}
    for number in range(4):
        allowed, excluded = rng.random(len(trie.items)) < 0.5, rng.permutation(len(trie.items))[:60]
        items = ItemSet.of(allowed) if number & 1 else None
        engine.add(BeamRequest(str(number), prompt, 5, 5, excluded if number & 2 else NOTHING, allowed_items=items))
        eligible[number] = set(np.flatnonzero(allowed) if number & 1 else range(len(trie.items))) - set(excluded if number & 2 else ())
    engine.step()
    for search in engine._running.unfinished():
        sequence, number = search.sequence, int(search.request.request_id)
        drafted = sequence.trie_nodes[sequence.depths == 1]
        alive = [node for node in range(*trie.level_starts[1:3]) if eligible[number] & set(trie.items_of(node).tolist())]
        assert sorted(drafted.tolist()) == alive


def draft_tokens(engine: SpeculativeBeamEngine, *requests: BeamRequest) -> int:
    """Tokens of the draft in the first step of requests."""
    for request in requests:
        engine.add(request)
    tokens = engine.step().draft_tokens
    while engine.running:
        engine.step()
    return tokens


def test_the_draft_computes_what_all_prompts_begin_with_once(speculation: Speculation) -> None:
    """Also where the list that has put it into the cache was not drafted, and where two that need it begin together."""
    prompts = [np.concatenate([[1], speculation.identifiers[[0, 1, 2, 3, last]].reshape(-1)]) for last in range(10, 15)]
    shared, own = len(prompts[0]) - 5, 5
    engine = SpeculativeBeamEngine(speculation.target, speculation.tries[2], speculation.draft, shared_tokens=prompts[0][:shared])
    requests = [BeamRequest(str(number), prompt, 5, 5, cache_key=str(number)) for number, prompt in enumerate(prompts)]
    assert draft_tokens(engine, requests[0]) == 0
    engine.use_plan(FixedPlan.parse("beam:9"))
    assert draft_tokens(engine, *requests[1:3]) == shared + 2 * own
    assert draft_tokens(engine, *requests[3:]) == 2 * own
    # What was kept of the first user is in the same slots.
    assert draft_tokens(engine, requests[0]) == own
    assert draft_tokens(engine, requests[0]) == 1


def test_what_is_shared_and_computed_once_is_foreseen_once(speculation: Speculation) -> None:
    prompts = [np.concatenate([[1], speculation.identifiers[[0, 1, 2, 3, last]].reshape(-1)]) for last in range(10, 13)]
    shared, own, plan = len(prompts[0]) - 5, 5, Spy("beam:20", 9)
    engine = SpeculativeBeamEngine(speculation.target, speculation.tries[2], speculation.draft, shared_tokens=prompts[0][:shared])
    first, *others = (BeamRequest(str(number), prompt, 5, 5, cache_key=str(number)) for number, prompt in enumerate(prompts))
    assert draft_tokens(engine, first) == 0
    engine.use_plan(plan)
    # The beam's own node aside.
    computed = draft_tokens(engine, *others) - 2
    assert plan.uncomputed[0] == computed / 2 == (shared + 2 * (own - 1)) / 2


def test_the_draft_computes_the_prompt_of_a_list_with_reserved_places_once(speculation: Speculation) -> None:
    engine = speculation.engine(2, "beam:9")
    prompt = np.concatenate([[1], speculation.identifiers[:5].reshape(-1)])
    reserved = ReservedPlaces(2, ItemSet.of(np.arange(150) % 3 == 0))
    request = BeamRequest("reserved", prompt, 5, 5, cache_key="user", reserved=reserved)
    assert draft_tokens(engine, request) == len(prompt) + 1
    assert draft_tokens(engine, request) == 2
