"""A soak of seconds, against a real server and a real Redis: what is promised holds, and the soak can tell."""

from pathlib import Path

import pytest

from benchmarks.soak import run, trial
from benchmarks.soak.phases import Lethal, Phase
from tests.server.forked_server import ForkedServer
from tests.services import REDIS_BINARY, REDIS_MISSING


@pytest.mark.skipif(REDIS_BINARY is None, reason=REDIS_MISSING)
@pytest.mark.parametrize("lethal", [Lethal.KILL_API, pytest.param(Lethal.HANG_ENGINE, marks=pytest.mark.exhaustive)])
def test_nothing_acknowledged_is_lost_in_a_short_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lethal: Lethal):
    monkeypatch.setattr(trial, "ServerProcess", ForkedServer)
    monkeypatch.setattr(run, "make_phases", lambda _: [Phase(4.0, lethal)])
    monkeypatch.setattr(run, "OPERATOR_PAUSE_SECONDS", 0.2)
    # It is for the memory, of which one phase says nothing.
    monkeypatch.setattr(run, "_SETTLE_SECONDS", 0.1)
    found = run.soak(tmp_path, run.SoakPlan(seconds=4.0, rate=8.0, shape="tiny"))
    # One phase is too short for memory, and may be for a change of each kind.
    told = [sentence for sentence in found.sentences() if "lived long enough" not in sentence and "were acknowledged" not in sentence]
    assert told == []
    assert found.events_acknowledged > 100
    assert {fault.kind for fault in found.faults} >= {"engine paused", "Redis slow", "Redis stalled"}
    assert found.api_starts == 1 + (lethal is Lethal.KILL_API)
