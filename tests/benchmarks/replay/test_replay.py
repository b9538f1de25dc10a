"""A replay makes the engine's forwards, token for token."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

import drafting.plans.plan
from benchmarks.replay.recording import Recording, RecordingError, record
from benchmarks.replay.report import compare_plans
from benchmarks.replay.simulate import Replay
from drafting.beam.rule import Normalisation
from drafting.plans.costs import CostCurve, ForwardCosts
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Plan
from tests.speculation import ITEMS, SameModel, Speculation
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest

USERS = 12
KS = (1, 4, 9)
RETRIEVED = [np.random.default_rng(user).permutation(ITEMS)[:20] for user in range(USERS)]
PLANS = (
    "none",
    "trie",
    "beam:3",
    "beam:12",
    "beam:40",
    "beam:12x1",
    "beam:8+children",
    "beam:20x1+children",
    "items:9",
    "last",
    "beam:12+items:9+last",
    "auto",
)


Recorded = tuple[int, list[np.ndarray], Recording, Normalisation]
# Two levels, and four by either rule, in every run; the other depths in `make test-all`.
RECORDED = [
    *(pytest.param((depth, Normalisation.VOCABULARY), marks=() if depth in (2, 4) else pytest.mark.exhaustive) for depth in (2, 3, 4, 5)),
    (4, Normalisation.CHILDREN),
]


@pytest.fixture(scope="module", params=RECORDED, ids=lambda made: f"{made[0]}-{made[1]}")
def recorded(request: pytest.FixtureRequest, speculation: Speculation) -> Recorded:
    depth, normalise = request.param
    rng = np.random.default_rng(7)
    requests = speculation.requests(USERS, rng)
    prompts = [each.prompt for each in requests]
    assert isinstance(speculation.target, TransformersHost)
    models, before = (SameModel(speculation.target), speculation.draft), [*prompts[1:], None]
    recording = record(*models, speculation.tries[depth], prompts, KS, before=before, retrieved=RETRIEVED, normalise=normalise)
    return depth, prompts, recording, normalise


def forwards(
    engine: SpeculativeBeamEngine, prompt: np.ndarray, k: int, retrieved: np.ndarray
) -> tuple[list[int], list[int], tuple[int, int, int]]:
    """Tokens of the target's forwards, tokens that the draft computed in each step, and what came of it."""
    engine.add(BeamRequest("only", prompt, k, k, cache_key="user", retrieved=retrieved))
    target, draft = [], []
    while engine.running:
        report = engine.step()
        target.append(report.tokens)
        if report.draft_tokens:
            draft.append(report.draft_tokens)
        for result in report.finished:
            usage = result.usage
    return target, draft, (usage.accepted_steps, usage.drafted_nodes, usage.used_nodes)


def check_replay(recorded: Recorded, speculation: Speculation, plans: tuple[Plan, Plan], ks: Sequence[int] = KS) -> int:
    """Compare forwards of the engine with those of a replay, each with a plan of its own; return the number of those of the draft."""
    depth, prompts, recording, normalise = recorded
    engine, replayed, replay, drafts = speculation.engine(depth, plans[0], normalise=normalise), plans[1], Replay(recording), 0
    for user, prompt in enumerate(prompts):
        for k in ks:
            engine.forget_histories()
            if user + 1 < len(prompts) and engine.plan.uses_last:
                last = speculation.engine(depth, "last", normalise=normalise)
                forwards(last, prompts[user + 1], k, RETRIEVED[user])
                engine.slots.last_beams.keep("user", engine.trie, last.slots.last_beams.find("user", engine.trie))
            target, draft, came_of_it = forwards(engine, prompt, k, RETRIEVED[user])
            done = replay.search(user, k, replayed)
            assert done.target == target
            assert sum(done.draft) == sum(draft)
            assert (done.accepted, done.drafted, done.used) == came_of_it
            drafts += len(done.draft)
    return drafts


@pytest.mark.parametrize("name", PLANS)
def test_a_replay_makes_the_engines_forwards(recorded: Recorded, speculation: Speculation, name: str) -> None:
    def plan() -> Plan:
        return speculation.planner(recorded[0]) if name == "auto" else FixedPlan.parse(name)

    check_replay(recorded, speculation, (plan(), plan()))


def test_a_replay_of_wide_beams_drafts_as_many_proposals_as_the_engine(
    recorded: Recorded, speculation: Speculation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beams are wide where twice as many prefixes are more than the draft ranks in any case."""
    monkeypatch.setattr(drafting.plans.plan, "MOST_PROPOSALS", 4)
    depth, wide = recorded[0], max(KS)
    plan, other = (speculation.planner(depth, ForwardCosts(CostCurve(3e3, 100.0), CostCurve(1.0, 0.001))) for _ in range(2))
    assert plan.most_proposals(wide) > plan.most_proposals(2) == 4
    assert check_replay(recorded, speculation, (plan, other), [wide])


def test_recordings_survive_the_disk(recorded: Recorded, tmp_path: Path) -> None:
    _, _, recording, _ = recorded
    recording.save(tmp_path / "users.npz")
    again = Recording.load(tmp_path / "users.npz")
    np.testing.assert_array_equal(again.draft, recording.draft)
    assert list(again.beams) == list(KS)
    np.testing.assert_array_equal(again.beams[4].nodes, recording.beams[4].nodes)


def test_an_interrupted_recording_leaves_nothing(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make paper` takes what is there for done."""

    def interrupted(file: BinaryIO, **_: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recorded[2].save(tmp_path / "users.npz")
    assert not list(tmp_path.iterdir())


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(RecordingError, match="is not a recording"):
        Recording.load(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(RecordingError, match="is not a recording"):
        Recording.load(path)


def test_the_report_weighs_forwards_by_the_cost_curve(recorded: Recorded) -> None:
    depth, _, recording, _ = recorded
    costs = ForwardCosts(CostCurve(100.0, 1.0), CostCurve(1.0, 0.01))
    rows = {(row.plan, row.k): row for row in compare_plans(recording, [4], ["none", "trie", "auto"], {100.0: costs})}
    done = [Replay(recording).search(user, 4, FixedPlan.parse("trie")) for user in range(recording.users)]
    expected = np.mean([100 * len(each.target) + sum(each.target) for each in done])
    assert rows["trie", 4].seconds == pytest.approx(expected)
    assert rows["trie", 4].speedup == pytest.approx(rows["none", 4].seconds / expected)
    assert rows["none", 4].target_forwards == depth
