"""Reused prompts: the same list for fewer tokens, and never a slot too many or too few."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.speculation import Speculation, run
from verification.engine.engine import SpeculativeBeamEngine
from verification.request import BeamRequest
from verification.result import BeamResult
from verification.slots.pool import EMPTY, CachedPrefix, PrefixCache, SlotPool

DEPTH = 4


def computed(pool: SlotPool, tokens: list[int], known: CachedPrefix) -> CachedPrefix:
    """What a request gives back after it has computed the rest of its prompt."""
    slots = np.concatenate([known.slots, pool.allocate(len(tokens) - len(known))])
    return CachedPrefix(np.array(tokens), slots, known.shared_length)


def test_the_common_prefix_is_shared_and_the_rest_given_back_when_the_request_ends() -> None:
    pool = SlotPool(20)
    cache = PrefixCache(pool)
    prompt = computed(pool, [1, 2, 3, 4, 5], cache.take("ann", np.array([1, 2, 3, 4, 5, 6])))
    cache.keep("ann", prompt)
    assert (cache.evictable, pool.free) == (5, 15)
    assert cache.known("ann", np.array([1, 2, 3, 9, 9])) == 3
    assert cache.known("bob", np.array([1, 2, 3, 9, 9])) == 0
    known = cache.take("ann", np.array([1, 2, 3, 9, 9]))
    np.testing.assert_array_equal(known.slots, prompt.slots[:3])
    assert (cache.held_slots, cache.evictable, pool.free) == (5, 2, 15)
    cache.keep("ann", computed(pool, [1, 2, 3, 9], known))
    assert (cache.held_slots, cache.evictable, pool.free) == (4, 4, 16)


def test_two_requests_of_a_user_at_once_find_the_same() -> None:
    pool = SlotPool(20)
    cache = PrefixCache(pool)
    cache.keep("ann", computed(pool, [1, 2, 3], EMPTY))
    first, second = (cache.take("ann", np.array([1, 2, 3, 4, 5])) for _ in range(2))
    np.testing.assert_array_equal(first.slots, second.slots)
    cache.keep("ann", computed(pool, [1, 2, 3, 4], first))
    assert (len(first), cache.evictable, pool.free) == (3, 1, 16)
    cache.make_room(20)
    assert (cache.known("ann", np.array([1, 2, 3, 4])), pool.free) == (0, 17)
    cache.keep("ann", computed(pool, [1, 2, 3, 4], second))
    assert (cache.evictable, pool.free) == (4, 16)


def test_a_request_that_computed_less_than_is_known_takes_nothing_away() -> None:
    pool = SlotPool(20)
    cache = PrefixCache(pool)
    cache.keep("ann", computed(pool, [1, 2, 3, 4, 5], EMPTY))
    cache.keep("ann", cache.take("ann", np.array([1, 2, 3])))
    assert (cache.known("ann", np.array([1, 2, 3, 4, 5, 6])), cache.evictable, pool.free) == (5, 5, 15)


@given(st.data())
def test_slots_are_accounted_for_whatever_ends_first(data: st.DataObject) -> None:
    """Random requests of two users begin, end and are evicted; what the cache says is counted anew from what there is."""
    pool, common = SlotPool(24), [7, 8]
    cache = PrefixCache(pool, np.array(common))
    running: list[tuple[str | None, list[int], CachedPrefix, np.ndarray]] = []
    for _ in range(data.draw(st.integers(1, 25))):
        kind = data.draw(st.sampled_from(["begin", "begin", "end", "evict"]))
        if kind == "begin":
            user = data.draw(st.sampled_from(["ann", "bob", None]))
            prompt = [*common, *data.draw(st.lists(st.integers(1, 2), min_size=1, max_size=6))]
            if len(prompt) - 1 - cache.known_to_all(np.array(prompt)) <= pool.free + cache.evictable:
                expected = cache.known(user, np.array(prompt))
                known = cache.take(user, np.array(prompt))
                assert len(known) == expected
                cache.make_room(len(prompt) - 1 - len(known))
                running.append((user, prompt, known, pool.allocate(len(prompt) - 1 - len(known))))
        elif kind == "end" and running:
            user, prompt, known, new = running.pop(data.draw(st.integers(0, len(running) - 1)))
            slots = np.concatenate([known.slots, new])
            cache.keep(user, CachedPrefix(np.array(prompt[:-1]), slots, known.shared_length))
        elif kind == "evict":
            cache.make_room(data.draw(st.integers(0, 24)))
        read = {int(slot) for _, _, known, new in running for slot in (*known.slots[known.shared_length :], *new)}
        kept = pool.used - len(read)
        assert kept == cache.evictable + cache.pinned <= cache.held_slots
        assert len({int(slot) for _, _, _, new in running for slot in new}) == sum(len(new) for *_, new in running)
    for user, _, known, new in running:
        pool.release(new)
        cache.keep(user, known)
    assert pool.used == cache.held_slots == cache.pinned + cache.evictable
    cache.clear()
    assert pool.used == cache.pinned


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    pool = SlotPool(20)
    cache = PrefixCache(pool)
    cache.keep("ann", computed(pool, [1, 2, 3], cache.take("ann", np.array([1, 2, 3, 4]))))
    assert cache.known("ann", np.array([1, 2, 3])) == 2


def test_what_everybody_begins_with_is_kept_once() -> None:
    pool = SlotPool(20)
    cache = PrefixCache(pool, np.array([7, 8]))
    first = computed(pool, [7, 8, 1], cache.take(None, np.array([7, 8, 1, 2])))
    cache.keep(None, first)
    assert (cache.pinned, cache.evictable, pool.free) == (2, 0, 18)
    known = cache.take("ann", np.array([7, 8, 5, 6]))
    np.testing.assert_array_equal(known.slots, first.slots[:2])
    cache.keep("ann", computed(pool, [7, 8, 5], known))
    assert (cache.held_slots, pool.free) == (3, 17)
    cache.clear()
    assert (cache.held_slots, pool.free) == (2, 18)


def test_a_copy_of_what_everybody_begins_with_leaves_the_room_that_was_seen() -> None:
    """Of two first requests at a time each computes it; the next of the second user reads it where everybody does."""
    pool = SlotPool(8)
    cache = PrefixCache(pool, np.array([7, 8]))
    first, second = (computed(pool, [7, 8, user], EMPTY) for user in (1, 2))
    cache.keep("ann", first)
    cache.keep("bob", second)
    prompt = np.array([7, 8, 2, 3, 4, 5, 6, 9, 1])
    needed = len(prompt) - 1 - cache.known_to_all(prompt)
    assert (needed, cache.evictable, pool.free) == (6, 4, 2)
    known = cache.take("bob", prompt)
    np.testing.assert_array_equal(known.slots, [*first.slots[:2], second.slots[2]])
    cache.make_room(len(prompt) - 1 - len(known))
    cache.keep("bob", computed(pool, prompt[:-1].tolist(), known))
    assert (cache.held_slots, cache.evictable, pool.free) == (8, 6, 0)


def test_what_everybody_begins_with_leaves_room_for_the_longest_prompt(speculation: Speculation) -> None:
    """Before it is cached, and after; with whatever is cached of users; and no room is seen that there is not."""
    prompt = np.concatenate([[1], speculation.identifiers[:9].reshape(-1)])
    engine = SpeculativeBeamEngine(speculation.target, speculation.tries[DEPTH], shared_tokens=prompt[:30])
    pools = engine.slots
    pools.prompts = SlotPool(len(prompt) - 1, first=pools.nodes.total)
    pools.prefix_cache = PrefixCache(pools.prompts, prompt[:30])
    longest = [np.append(prompt[:-1], last) for last in prompt[1:8]]
    for number, each in enumerate(longest):
        request = BeamRequest(f"fits {number}", each, 3, 3, cache_key=str(number))
        longer = dataclasses.replace(request, prompt=np.append(each, each[-1]))
        assert (engine.fits(request), engine.has_room(request)) == (True, True)
        assert (engine.fits(longer), engine.has_room(longer)) == (False, False)
        engine.add(request)
        short = dataclasses.replace(request, request_id="waits", prompt=prompt[:32])
        assert not engine.has_room(short)
        assert engine.has_room(short, [request])
        run(engine, [], np.random.default_rng(0))
        assert pools.prefix_cache.pinned == 30


def test_the_least_recently_used_goes_first() -> None:
    pool = SlotPool(9)
    cache = PrefixCache(pool)
    for user in ("ann", "bob", "cem"):
        cache.keep(user, computed(pool, [1, 2, 3], cache.take(user, np.array([1, 2, 3, 4]))))
    cache.keep("ann", computed(pool, [1, 2, 3], cache.take("ann", np.array([1, 2, 3, 4]))))
    cache.make_room(3)
    assert [cache.known(user, np.array([1, 2, 3, 4])) for user in ("ann", "bob", "cem")] == [3, 0, 3]


def test_one_user_is_forgotten_and_what_runs_keeps_what_it_reads() -> None:
    pool = SlotPool(20)
    cache = PrefixCache(pool, np.array([1, 2]))
    for user, token in (("ann", 3), ("bob", 4)):
        cache.keep(user, computed(pool, [1, 2, token], cache.take(user, np.array([1, 2, token, 9]))))
    running = cache.take("ann", np.array([1, 2, 3, 9]))
    for key in ("ann", "ann", "nobody"):
        cache.forget(key)
    assert [cache.known(user, np.array([1, 2, token, 9])) for user, token in (("ann", 3), ("bob", 4))] == [2, 3]
    assert (cache.held_slots, cache.evictable, pool.free) == (3, 1, 16)
    cache.drop(None, running)
    assert pool.free == 17


@pytest.mark.parametrize("plan", ["none", "beam:12", "auto"])
@pytest.mark.parametrize("slots", [90, 4000])
def test_lists_are_the_same_with_and_without_the_cache(speculation: Speculation, plan: str, slots: int) -> None:
    """Users whose histories grow or start anew, in changing company, with plenty of memory and with hardly any."""
    rng = np.random.default_rng(0)
    plain: dict[str, BeamResult] = {}
    requests = growing_histories(speculation, rng)
    plain = run(speculation.engine(DEPTH), [dataclasses.replace(request, cache_key=None) for request in requests], rng)
    engine = speculation.engine(DEPTH, plan)
    shrink(engine, slots)
    results = run_when_there_is_room(engine, requests)
    reused = sum(result.usage.cached_tokens for result in results.values())
    for name, expected in plain.items():
        assert [item.item for item in results[name].items] == [item.item for item in expected.items]
        assert results[name].usage.cached_tokens < len(requests[int(name)].prompt)
    assert (reused > 1000) == (slots == 4000)
    assert engine.used_slots == 0
    engine.forget_histories()
    assert engine.cached_slots == 0
    assert engine.slots.prompts.free == engine.slots.prompts.total


def growing_histories(speculation: Speculation, rng: np.random.Generator) -> list[BeamRequest]:
    histories: dict[int, list[int]] = {}
    requests = []
    for number in range(120):
        user = int(rng.zipf(1.5)) % 12
        if rng.random() < 0.1:
            histories[user] = []
        histories.setdefault(user, []).append(int(rng.integers(len(speculation.identifiers))))
        window = histories[user][-10:]
        prompt = np.concatenate([[1], speculation.identifiers[window].reshape(-1)])
        k = int(rng.integers(1, 8))
        requests.append(BeamRequest(str(number), prompt, k, k, cache_key=f"user-{user}"))
    return requests


def shrink(engine: SpeculativeBeamEngine, slots: int) -> None:
    """Leaves the engine only so many slots for prompts."""
    pools = engine.slots
    pools.prompts = SlotPool(min(slots, pools.prompts.total), first=pools.nodes.total)
    pools.prefix_cache = PrefixCache(pools.prompts)


def run_when_there_is_room(engine: SpeculativeBeamEngine, requests: list[BeamRequest]) -> dict[str, BeamResult]:
    """Runs the requests in order, up to three at a time, cancelling one now and then to ask it again."""
    rng = np.random.default_rng(1)
    waiting, results = list(reversed(requests)), dict[str, BeamResult]()
    while waiting or engine.running:
        while waiting and engine.running < 3 and engine.has_room(waiting[-1]):
            engine.add(waiting.pop())
        if engine.running and rng.random() < 0.1:
            waiting.append(engine._running.unfinished()[0].request)
            assert engine.cancel(waiting[-1].request_id)
            continue
        for result in engine.step().finished:
            results[result.request_id] = result
    return results


def test_an_appended_item_costs_its_own_tokens(speculation: Speculation) -> None:
    engine = speculation.engine(DEPTH)
    prompt = np.concatenate([[1], speculation.identifiers[:9].reshape(-1)])
    (first,) = run(engine, [BeamRequest("first", prompt, 3, 3, cache_key="ann")], np.random.default_rng(0)).values()
    longer = np.concatenate([prompt, speculation.identifiers[9]])
    (second,) = run(engine, [BeamRequest("second", longer, 3, 3, cache_key="ann")], np.random.default_rng(0)).values()
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens == len(prompt) - 1


def test_who_is_forgotten_is_computed_anew(speculation: Speculation) -> None:
    engine = speculation.engine(DEPTH)
    prompt = np.concatenate([[1], speculation.identifiers[:9].reshape(-1)])

    def cached(user: str) -> int:
        (result,) = run(engine, [BeamRequest(user, prompt, 3, 3, cache_key=user)], np.random.default_rng(0)).values()
        return result.usage.cached_tokens

    assert [cached(user) for user in ("ann", "bob", "ann")] == [0, 0, len(prompt) - 1]
    engine.forget("ann")
    assert [cached(user) for user in ("bob", "ann")] == [len(prompt) - 1, 0]
