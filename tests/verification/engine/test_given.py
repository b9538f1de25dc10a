"""Given drafts: what a user's last search kept and a retriever's items are in the tree from the first forward on, and change no list."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from drafting.beam.rule import SearchRule, Verification
from drafting.plans.fixed_plan import FixedPlan, PlanError
from drafting.plans.given import Given, GivenOutcome, GivenPrefixes, prefixes_of, sources_of
from drafting.plans.plan import DraftRound, LevelOutcome
from drafting.plans.running_costs import StepTimes
from drafting.trie.item_set import ItemSet
from drafting.trie.item_trie import ItemTrie
from tests.lists import assert_same_list
from tests.speculation import COSTS, ITEMS, Speculation, run
from verification.request import BeamRequest, ReservedPlaces, Think
from verification.search import FEWEST_KEPT
from verification.slots.last_beams import LastBeamsStore

DEPTH = 4


def request_of(speculation: Speculation, number: int, k: int = 6, **options: object) -> BeamRequest:
    history = np.random.default_rng(number).integers(ITEMS, size=5)
    prompt = np.concatenate([[1], speculation.identifiers[history].reshape(-1)])
    return replace(BeamRequest(str(number), prompt, k, k), **options)  # type: ignore[arg-type]


def test_the_same_question_again_takes_one_forward(speculation: Speculation) -> None:
    engine, rng = speculation.engine(DEPTH, "last"), np.random.default_rng(0)
    first, again = (run(engine, [request_of(speculation, 1, cache_key="user")], rng)["1"] for _ in range(2))
    assert first.usage.target_forwards == DEPTH
    assert (again.usage.target_forwards, again.usage.accepted_steps, again.usage.plan) == (1, DEPTH - 1, "last")
    assert again.usage.used_by == {"last": 6 * (DEPTH - 1)}
    assert_same_list(again, first)
    (unknown,) = run(engine, [request_of(speculation, 1)], rng).values()
    assert unknown.usage.target_forwards == DEPTH, "without a key there is nobody to remember"


@dataclass(frozen=True)
class Choosy(FixedPlan):
    """Looks at the last list of one user only, and notes how long steps took."""

    times: list[StepTimes] = field(default_factory=list)

    def wants_last(self, state: DraftRound, key: str) -> bool:
        return key == "wanted"

    def learn_times(self, times: StepTimes) -> None:
        self.times.append(times)


def test_last_lists_that_a_plan_does_not_want_take_no_time(speculation: Speculation) -> None:
    for key, forwards in (("wanted", 1), ("other", DEPTH)):
        plan = Choosy("last", uses_last=True)
        engine = speculation.engine(DEPTH, plan)
        asked = [request_of(speculation, 1, cache_key=key)]
        for expected in (DEPTH, forwards):
            assert run(engine, asked, np.random.default_rng(0))["1"].usage.target_forwards == expected
        assert len(engine.slots.last_beams) == (key == "wanted")
        assert sum(times.searches for times in plan.times) == 2 * (key == "wanted")
        assert all((times.last_seconds > 0) == (key == "wanted") for times in plan.times)
        assert all(times.target_seconds > 0 and times.draft_seconds >= 0 for times in plan.times)


def test_a_user_who_is_forgotten_is_not_remembered_by_what_still_runs(speculation: Speculation) -> None:
    engine, asked = speculation.engine(DEPTH, "last"), request_of(speculation, 1, cache_key="user")
    run(engine, [asked], np.random.default_rng(0))
    engine.add(asked)
    engine.forget("user")
    while engine.running:
        engine.step()
    assert (len(engine.slots.last_beams), engine.cached_slots) == (0, 0)
    run(engine, [asked], np.random.default_rng(0))
    assert (len(engine.slots.last_beams), engine.cached_slots) == (1, len(asked.prompt) - 1)


def test_nobody_is_remembered_by_what_still_runs_once_all_are_forgotten(speculation: Speculation) -> None:
    engine, think = speculation.engine(DEPTH, "last"), Think(3, np.array([1, 1]), np.empty(0, np.int64))
    for number, thinks in ((1, None), (2, think), (3, None)):
        engine.add(request_of(speculation, number, cache_key=f"user {number}", think=thinks))
    engine.step()
    engine.forget_histories()
    while engine.running:
        engine.step()
    assert (len(engine.slots.last_beams), engine.cached_slots, engine.used_slots) == (0, 0, 0)


def test_a_user_who_is_forgotten_while_a_text_is_written_is_not_remembered(speculation: Speculation) -> None:
    engine, think = speculation.engine(DEPTH, "last"), Think(3, np.array([1, 1]), np.empty(0, np.int64))
    for is_forgotten in (False, True):
        engine.add(request_of(speculation, 1, cache_key="user", think=think))
        engine.step()
        if is_forgotten:
            engine.forget("user")
        while engine.running:
            engine.step()
        assert len(engine.slots.last_beams) == (not is_forgotten)
    assert engine.cached_slots == 0


def test_relaxed_lists_depend_on_nothing_that_was_asked_before(speculation: Speculation) -> None:
    engine, rng = speculation.engine(DEPTH, "beam:9+items:9+last"), np.random.default_rng(0)
    rule, retrieved = SearchRule(Verification.RELAXED, seed=1), np.arange(9)
    asked = request_of(speculation, 1, cache_key="user", retrieved=retrieved)
    run(engine, [asked], rng)
    relaxed = [run(engine, [replace(asked, rule=rule, cache_key=key)], rng)["1"] for key in ("user", None)]
    assert_same_list(*relaxed)
    assert all(set(result.usage.used_by) <= {"beam"} for result in relaxed)


def test_items_that_hold_all_that_the_target_keeps_take_one_forward(speculation: Speculation) -> None:
    engine = speculation.engine(DEPTH, "items:150")
    (result,) = run(engine, [request_of(speculation, 2, retrieved=np.arange(ITEMS))], np.random.default_rng(0)).values()
    assert result.usage.target_forwards == 1
    assert result.usage.used_by == {"items": 18}
    trie = speculation.tries[DEPTH]
    assert result.usage.drafted_nodes == sum(trie.level_size(depth) for depth in range(1, DEPTH))


@pytest.mark.parametrize("item", [-1, ITEMS])
def test_items_that_the_catalog_does_not_have_are_refused_before_they_spoil_a_step(speculation: Speculation, item: int) -> None:
    engine = speculation.engine(DEPTH, "items:9")
    with pytest.raises(ValueError, match=f"A request brings an item that the catalog of {ITEMS} items does not have"):
        engine.add(request_of(speculation, 1, retrieved=np.array([3, item])))
    (result,) = run(engine, [request_of(speculation, 1, retrieved=np.array([3, ITEMS - 1]))], np.random.default_rng(0)).values()
    assert result.items


@pytest.mark.parametrize("plan", ["last", "items:12+last", "beam:12+items:12+last", "auto"])
def test_filters_places_and_other_catalogs_leave_lists_as_they_are(speculation: Speculation, plan: str) -> None:
    """The same users again and again, each time with another question, and now and then of another catalog on the same slots."""
    rng = np.random.default_rng(3)
    engine = speculation.engine(DEPTH, plan)
    kept = np.sort(rng.permutation(ITEMS)[:120])
    smaller = ItemTrie.build(speculation.identifiers[kept][:, :DEPTH])
    other, plain = engine.successor(smaller, engine.plan), speculation.engine(DEPTH)
    plain_other = plain.successor(smaller, plain.plan)
    fewer = 0
    for number in range(40):
        is_other = number % 4 == 3
        items = len(kept) if is_other else ITEMS
        options: dict[str, object] = {"cache_key": f"user {number % 3}", "retrieved": rng.permutation(items)[:20]}
        if number % 5 == 1:
            options["allowed_items"] = ItemSet.of(rng.random(items) < 0.5)
        if number % 5 == 2:
            options["reserved"] = ReservedPlaces(2, ItemSet.of(rng.random(items) < 0.3))
        if number % 5 == 3:
            options["excluded_items"] = rng.permutation(items)[:40]
        asked = request_of(speculation, number % 6, **options)
        (result,) = run(other if is_other else engine, [asked], rng).values()
        (expected,) = run(plain_other if is_other else plain, [asked], rng).values()
        assert_same_list(result, expected)
        fewer += result.usage.target_forwards < expected.usage.target_forwards
    assert fewer > 5


def test_prefixes_survive_a_new_version_by_their_tokens(speculation: Speculation) -> None:
    old, rng = speculation.tries[DEPTH], np.random.default_rng(0)
    store = LastBeamsStore()
    nodes = prefixes_of(old, rng.permutation(ITEMS)[:60])
    store.keep("user", old, nodes)
    kept = np.sort(rng.permutation(ITEMS)[:90])
    new = ItemTrie.build(speculation.identifiers[kept][:, :DEPTH])

    def texts(trie: ItemTrie, of: np.ndarray) -> set[tuple[int, ...]]:
        """Prefixes by their tokens, walked up from each node."""
        found = set()
        for node in of.tolist():
            depth, tokens = int(np.searchsorted(trie.level_starts, node, side="right")) - 1, []
            while depth:
                tokens.append(int(trie.token[node]))
                (node,) = trie.parents(np.array([node]), depth).tolist() if depth > 1 else [0]
                depth -= 1
            found.add(tuple(reversed(tokens)))
        return found

    inner = np.arange(1, new.level_starts[-2])
    assert texts(new, store.find("user", new)) == texts(old, nodes) & texts(new, inner)
    np.testing.assert_array_equal(store.find("user", old), nodes)
    assert len(store.find("user", speculation.tries[2])) == 0, "identifiers of another length"


def test_memory_is_bounded_by_nodes(speculation: Speculation) -> None:
    trie = speculation.tries[DEPTH]
    store = LastBeamsStore(most_nodes=100)
    for user in range(30):
        store.keep(str(user), trie, prefixes_of(trie, np.arange(5)))
    assert 1 <= len(store) < 30
    assert len(store.find("0", trie)) == 0
    store.keep("wide", trie, prefixes_of(trie, np.arange(ITEMS)))
    assert len(store.find("wide", trie)) == 0, "larger than all memory"
    for user in range(30):
        store.keep(str(user), trie, np.array([1]))
    assert len(store) == 1, "a user takes memory beside the nodes"


def test_more_is_kept_than_the_beam(speculation: Speculation) -> None:
    engine, trie = speculation.engine(DEPTH, "last"), speculation.tries[DEPTH]
    run(engine, [request_of(speculation, 1, k=2, cache_key="user")], np.random.default_rng(0))
    kept = engine.slots.last_beams.find("user", trie)
    assert np.count_nonzero(kept < trie.level_starts[2]) == min(FEWEST_KEPT, trie.level_size(1))
    deeper = kept[kept >= trie.level_starts[2]]
    above = trie.parents(deeper[deeper < trie.level_starts[3]], 2)
    assert set(above.tolist()) <= set(kept.tolist())


def test_the_planner_takes_what_pays_and_leaves_what_does_not(speculation: Speculation) -> None:
    """With a draft that is never right it takes what has held beams where forwards are costly, not where tokens are, nor what held none."""
    given, scores = GivenPrefixes.of(np.arange(1, 40), np.arange(20, 60)), -0.1 * np.arange(256, dtype=np.float32)
    held = dict.fromkeys(given.nodes, np.zeros(256, bool))
    for costs, pays in ((COSTS[2], True), (COSTS[0], False)):
        planner = speculation.planner(DEPTH, costs)
        state = DraftRound((1, 6, 6, 6, 6), 0, 1, 1, 1, 30, offered=sources_of(given))
        assert planner.given(state, given.sizes) is Given.NONE, "nothing is known yet"
        for _ in range(50):
            for depth in range(1, DEPTH):
                holds = {source: np.full(6, source is not Given.ITEMS) for source in given.nodes}
                planner.learn([LevelOutcome(depth, np.full(6, -1), scores, 0, covered=holds, held=held)])
                for source, covered in ((Given.LAST, True), (Given.ITEMS, False), (Given.LAST | Given.ITEMS, True)):
                    planner.learn_given([GivenOutcome(source, 6, depth, depth - 1 if covered else 0, covered)])
        assert planner.given(state, given.sizes) is (Given.LAST if pays else Given.NONE)


@pytest.mark.parametrize("name", ["items:0", "items:257", "last+items:3", "children", "beam:4+trie", "none+last", "items", ""])
def test_plans_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(PlanError):
        FixedPlan.parse(name)


@pytest.mark.parametrize(
    ("name", "widest"), [("items:9", 9), ("beam:7+items:9", 16), ("last", None), ("beam:7+last", None), ("trie+items:9", None)]
)
def test_a_plan_refuses_what_it_could_never_hold(name: str, widest: int | None) -> None:
    plan = FixedPlan.parse(name)
    assert plan.widest_beam == widest
    assert plan.drafts
    assert (plan.refusal(1000) is None) == (widest is None)
