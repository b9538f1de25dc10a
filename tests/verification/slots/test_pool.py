"""Slot accounting under random owners."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verification.slots.pool import OutOfSlots, SlotPool


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60))
def test_every_slot_has_at_most_one_owner(actions: list[tuple[bool, int]]) -> None:
    pool, owners = SlotPool(32), []
    for take, number in actions:
        if take and number <= pool.free:
            owners.append(pool.allocate(number))
        elif take:
            with pytest.raises(OutOfSlots, match=f"only {pool.free} of 32 are free"):
                pool.allocate(number)
        elif owners:
            pool.release(owners.pop(number % len(owners)))
        owned = np.concatenate([*owners, np.empty(0, np.int64)])
        assert len(np.unique(owned)) == len(owned) == pool.used
        assert pool.free + pool.used == pool.total
    for slots in owners:
        pool.release(slots)
    assert pool.free == 32
    assert pool.allocate(32).tolist() == list(range(32))


def test_a_shared_slot_is_free_when_its_last_owner_has_given_it_back() -> None:
    pool = SlotPool(6, first=10)
    slots = pool.allocate(3)
    pool.share(slots[:2])
    assert pool.shared(slots).tolist() == [True, True, False]
    pool.release(slots)
    assert pool.used == 2
    pool.release(slots[:2])
    assert pool.used == 0
    with pytest.raises(ValueError, match="shared that has no owner"):
        pool.share(slots[:1])


@pytest.mark.parametrize("wrong", [[3], [0, 0], [1, 3], [3, 1], [0, 1, 0], [1, 1], [0, 1, 1]])
def test_of_a_wrong_release_nothing_is_given_back(wrong: list[int]) -> None:
    """Slot 0 has one owner, slot 1 two, and slot 3 none."""
    pool = SlotPool(4)
    pool.share(pool.allocate(2)[1:])
    with pytest.raises(ValueError, match="has no owner, or was named twice"):
        pool.release(np.array(wrong))
    assert pool.used == 2
    assert pool.shared(np.arange(4)).tolist() == [False, True, False, False]
    # All owners are as they were: they can give back what is theirs, and no more.
    pool.release(np.array([0, 1]))
    assert pool.used == 1
    pool.release(np.array([1]))
    assert pool.used == 0
