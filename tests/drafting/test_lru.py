"""The bounded mapping against one that is written down in full."""

import random

from drafting.lru import LruMap


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    rng = random.Random(0)
    kept, oracle = LruMap[int, int](20, lambda value: value), list[tuple[int, int]]()
    for _ in range(2000):
        key, value = rng.randrange(8), rng.choice([1, 2, 5, 9, 20, 21])
        known = dict(oracle)
        match rng.randrange(8):
            case 0 | 1 | 2:
                assert kept.get(key) == known.get(key)
                oracle.sort(key=lambda entry: entry[0] == key)
            case 3:
                kept.forget(key)
                oracle = [entry for entry in oracle if entry[0] != key]
            case _:
                assert kept.keep(key, value) == value
                oracle = [entry for entry in oracle if entry[0] != key]
                # One that has no room alone takes none from the others.
                oracle += [(key, value)] if value <= 20 else []
                while sum(size for _, size in oracle) > 20:
                    oracle.pop(0)
        assert len(kept) == len(oracle)
    kept.clear()
    assert len(kept) == 0
    assert kept.keep(1, 20) == kept.get(1) == 20


def test_without_sizes_values_are_counted() -> None:
    kept = LruMap[str, str](2)
    for key in "aba":
        kept.keep(key, key)
    kept.keep("c", "c")
    assert [kept.get(key) for key in "abc"] == ["a", None, "c"]
