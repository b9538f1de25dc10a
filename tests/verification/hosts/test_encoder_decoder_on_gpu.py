"""Encoder-decoder models where the kernel attends, as on a GPU (`tests.stand_in`): lists are those of a processor."""

from pathlib import Path

import numpy as np
import pytest

from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_trie import ItemTrie
from tests.kernel_launches import KernelLaunches, MergeLaunches
from tests.models import random_catalog
from tests.speculation import noisy_copy
from tests.stand_in import DEVICE, stand_in
from tests.t5_models import save_t5_model
from tests.verification.engine.test_beam_search import reference_vocabulary
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.encoder_decoder import EncoderDecoderHost
from verification.request import BeamRequest
from verification.result import BeamResult

tree_kernel = pytest.importorskip("verification.hosts.tree_kernel", reason="needs Triton", exc_type=ImportError)
CATALOG = random_catalog(items=60, depth=3, codes=5)
SLOTS, K = 512, 8


def lists(engine: SpeculativeBeamEngine, requests: list[BeamRequest]) -> dict[str, BeamResult]:
    for request in requests:
        engine.add(request)
    found = {}
    while engine.running:
        found |= {result.request_id: result for result in engine.step().finished}
    return found


@pytest.mark.parametrize("plan", ["none", "beam:12"])
@pytest.mark.parametrize("count", [1, 3])
def test_lists_are_those_of_a_processor(count: int, plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = save_t5_model(tmp_path / "target", CATALOG)
    folders = target, noisy_copy(target, tmp_path / "draft", 0.1)
    identifiers, rng = CATALOG.token_ids(reference_vocabulary(target)), np.random.default_rng(0)
    prompts = [identifiers[rng.integers(len(CATALOG), size=2 + number)].reshape(-1) for number in range(count)]
    requests = [BeamRequest(str(number), prompt, K, K) for number, prompt in enumerate(prompts)]
    hosts = [EncoderDecoderHost(folder, dtype="float32", slots=SLOTS) for folder in folders]
    expected = lists(SpeculativeBeamEngine(hosts[0], ItemTrie.build(identifiers), hosts[1], FixedPlan.parse(plan)), requests)
    with stand_in() as device:
        launches = KernelLaunches(device)
        monkeypatch.setattr(tree_kernel, "_attend_stretch", launches)
        monkeypatch.setattr(tree_kernel, "_merge_stretches", MergeLaunches(device))
        moved = [EncoderDecoderHost.from_model(host.model.to(DEVICE), SLOTS) for host in hosts]
        engine = SpeculativeBeamEngine(moved[0], ItemTrie.build(identifiers, DEVICE), moved[1], FixedPlan.parse(plan))
        found = lists(engine, requests)
    assert launches.count > 0
    for name, result in expected.items():
        assert [item.item for item in found[name].items] == [item.item for item in result.items]
        np.testing.assert_allclose([item.score for item in found[name].items], [item.score for item in result.items], atol=1e-4)
