"""Levels judged ahead, as where reading waits for the device, against levels judged one by one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drafting.plan import FixedPlan
from drafting.rule import STRICT, SearchRule, Verification
from tests.speculation import DEPTHS, Speculation, run
from verification.level_judge import LevelJudge
from verification.request import BeamRequest, BeamResult

PLANS = [FixedPlan.parse(name) for name in ("none", "trie", "beam:30", "beam:12", "beam:20x1", "beam:12+children")]
RULES = [STRICT, SearchRule(Verification.GUMBEL, seed=3, temperature=0.7), SearchRule(Verification.RELAXED, seed=5)]


@pytest.fixture(scope="module")
def speculation(tmp_path_factory: pytest.TempPathFactory) -> Speculation:
    return Speculation(Path(tmp_path_factory.mktemp("levels")))


def requests(speculation: Speculation) -> list[BeamRequest]:
    """Requests of every kind and rule."""
    found = []
    for number, rule in enumerate(RULES * 2):
        for request in speculation.requests(6, np.random.default_rng(number), rule):
            found.append(replace(request, request_id=f"{number}/{request.request_id}"))
    return [found[place] for place in np.random.default_rng(1).permutation(len(found))]


def answers(speculation: Speculation, depth: int, ahead: bool) -> dict[str, BeamResult]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verification.level_judge.reading_waits", lambda device: ahead)
        engine = speculation.engine(depth, PLANS[2])
    return run(engine, requests(speculation), np.random.default_rng(2), list(PLANS))


@pytest.mark.parametrize("depth", DEPTHS)
def test_judging_ahead_changes_neither_lists_nor_what_they_cost(
    speculation: Speculation, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches and plans that change from step to step, requests of all rules side by side, many of which reject what was drafted."""
    one_by_one = answers(speculation, depth, ahead=False)
    judge, most = LevelJudge.judge, []

    def counting(*args):  # type: ignore[no-untyped-def]
        levels = judge(*args)
        most.append(len(levels))
        return levels

    monkeypatch.setattr(LevelJudge, "judge", counting)
    assert answers(speculation, depth, ahead=True) == one_by_one
    assert max(most) == depth
    accepted = [result.usage.accepted_steps for result in one_by_one.values()]
    assert depth == 1 or 0 < sum(accepted) < len(accepted) * (depth - 1)
