"""Scripted searches on a GPU that is none (`tests.stand_in`): they wait for it as often as those of trained models, once a step."""

from copy import deepcopy

import numpy as np
import pytest

from benchmarks.gpu.scripted_models import FlatTarget, OverlookingDraft, ScriptedPlan, Stage
from benchmarks.systems.trace import TraceRound, TraceRun
from drafting.trie.item_trie import ItemTrie
from tests.speculation import Speculation
from tests.stand_in import DEVICE, stand_in
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest

K, DEPTH = 3, 4
# The draft overlooks two prefixes of the second level.
SCRIPT = (TraceRound((6, 6, 6), 1, 2, 19), TraceRound((5,), 1, 0, 7))


def test_a_scripted_step_reads_once_and_what_is_overlooked_is_sent_without_waiting(
    speculation: Speculation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verification.hosts.attention.HAS_TRITON", False)
    identifiers = speculation.identifiers[:, :DEPTH]
    with stand_in() as device:
        models = speculation.target_model, speculation.draft.model
        hosts = [TransformersHost.from_model(deepcopy(model).to(DEVICE), 4096) for model in models]
        trie = ItemTrie.build(identifiers, DEVICE)
        stage = Stage(last_depth=trie.depth - 1)
        engine = SpeculativeBeamEngine(FlatTarget(hosts[0]), trie, OverlookingDraft(hosts[1], trie, stage))
        engine.use_plan(ScriptedPlan(TraceRun("beam:6", K, 6, (SCRIPT,)), stage))
        for name in ("first", "second"):
            engine.add(BeamRequest(name, np.concatenate([[1], identifiers[:3].reshape(-1)]), K, K))
            stage.enter(name, SCRIPT)
        drafted = []
        while engine.running:
            stage.before_step()
            with device.policed():
                report = engine.step()
            assert device.reads == 1
            drafted.append(report.draft_forwards)
            stage.after_step(report.finished)
    assert drafted == [3, 1]
