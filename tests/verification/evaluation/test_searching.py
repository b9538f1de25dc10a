"""Modes of an evaluation take turns."""

from types import SimpleNamespace
from typing import Any

from drafting.plans.fixed_plan import FixedPlan
from verification.evaluation.searching import WARM_UP, Beam, Mode, time_modes


def test_no_mode_always_comes_behind_the_same_other() -> None:
    """Plain search always came behind the last drafted mode, whose draft is what the caches hold then."""
    asked: list[str] = []
    engine = SimpleNamespace(use_plan=lambda plan: asked.append(plan.name))
    recommender: Any = SimpleNamespace(engine=engine, recommend=lambda *_, **__: iter([None]))
    names = ["none", "trie", "beam:20"]
    users: Any = [None] * 20
    seconds = time_modes(recommender, [Mode("", "", FixedPlan.parse(name)) for name in names], users, 5, Beam(5))
    turns = [tuple(asked[start : start + 3]) for start in range(0, len(asked), 3)]
    assert len(turns) == WARM_UP + len(users)
    assert all(sorted(turn) == sorted(names) for turn in turns)
    assert len(set(turns)) > 3
    assert [len(each) for each in seconds] == [len(users)] * 3
