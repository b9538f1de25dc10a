"""How often a step makes the host wait for the device, counted on a device that is none (`tests.stand_in`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from drafting.beam.rule import STRICT, SearchRule, Tolerance, Verification
from drafting.device import on_device, on_host
from drafting.plans.costs import ForwardCosts
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.given import Given
from drafting.plans.plan import DraftRound, Plan
from drafting.plans.planner import Planner
from drafting.trie.item_set import ItemSet
from drafting.trie.item_trie import ItemTrie
from tests.explaining import check_explained
from tests.models import save_family_model
from tests.speculation import COSTS, Speculation
from tests.stand_in import DEVICE, DeviceTensor, Punished, StandIn, stand_in
from verification.blend import Blend
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest, ReservedPlaces, Think
from verification.result import BeamResult, StepReport
from verification.scored import Scored

K = 8
DEPTH = 4
RULES = [STRICT, SearchRule(Verification.GUMBEL, seed=1), SearchRule(Verification.RELAXED, seed=1)]


class Device:
    """A target and a draft on the stand-in."""

    def __init__(self, speculation: Speculation, device: StandIn) -> None:
        self.device = device
        models = speculation.target_model, speculation.draft.model
        self._hosts = [TransformersHost.from_model(deepcopy(model).to(DEVICE), 4096) for model in models]
        self._trie = ItemTrie.build(speculation.identifiers[:, :DEPTH], DEVICE)
        self._identifiers = speculation.identifiers
        self.identifiers = speculation.identifiers[:, :DEPTH]

    def requests(self, count: int, rule: SearchRule = STRICT) -> list[BeamRequest]:
        rng = np.random.default_rng(0)
        prompts = [np.concatenate([[1], self._identifiers[rng.integers(150, size=5 + number)].reshape(-1)]) for number in range(count)]
        return [BeamRequest(str(number), prompt, K, K, rng.permutation(150)[:20], rule) for number, prompt in enumerate(prompts)]

    def run(self, plan: Plan | str, requests: list[BeamRequest], before: Sequence[BeamRequest] = ()) -> list[tuple[StepReport, int]]:
        """Each step's report and how often it read, after the lists of `before`; a request that is added reads nothing."""
        chosen = FixedPlan.parse(plan) if isinstance(plan, str) else plan
        engine = SpeculativeBeamEngine(self._hosts[0], self._trie, self._hosts[1], chosen)
        for request in before:
            engine.add(request)
        while engine.running:
            engine.step()
        for request in requests:
            with self.device.policed():
                engine.add(request)
            assert self.device.reads == 0
        found = []
        while engine.running:
            with self.device.policed():
                report = engine.step()
            found.append((report, self.device.reads))
        return found


@pytest.fixture
def device(speculation: Speculation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr("verification.hosts.attention.HAS_TRITON", False)
    with stand_in() as made:
        yield Device(speculation, made)


@pytest.mark.parametrize("requests", [1, 6])
def test_plain_search_reads_once_a_step(device: Device, requests: int) -> None:
    assert [reads for _, reads in device.run("none", device.requests(requests))] == [1] * DEPTH


@pytest.mark.parametrize("requests", [1, 6])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.verification.value)
def test_a_speculative_step_reads_once(device: Device, rule: SearchRule, requests: int) -> None:
    """However many levels are drafted and verified."""
    found = device.run("beam:40", device.requests(requests, rule))
    assert found[0][0].draft_forwards == DEPTH - 1
    assert found[0][0].accepted
    assert [reads for _, reads in found] == [1] * len(found)


def test_a_look_ahead_past_a_rejected_level_reads_nothing_more(device: Device) -> None:
    """That of lists with a tolerance, which share their steps with others."""
    asked = [replace(request, tolerance=Tolerance(items=4) if number % 2 else None) for number, request in enumerate(device.requests(6))]
    found = device.run("beam:12", asked)
    assert found[0][0].draft_forwards == DEPTH - 1
    assert [reads for _, reads in found] == [1] * len(found)


@pytest.mark.parametrize("requests", [1, 6])
def test_children_are_drafted_without_reading(device: Device, requests: int) -> None:
    found = device.run("trie", device.requests(requests))
    assert [(report.accepted, reads) for report, reads in found] == [(requests, 1)] * 2


@pytest.mark.parametrize("requests", [1, 6])
def test_children_of_a_level_that_no_host_knows_are_drafted_without_reading(device: Device, requests: int) -> None:
    found = device.run("beam:40x1+children", device.requests(requests))
    assert found[0][0].draft_forwards == 1
    assert found[0][0].accepted > requests
    assert [reads for _, reads in found] == [1] * len(found)


@pytest.mark.parametrize(("requests", "costs"), [(1, COSTS[1]), (6, COSTS[2])])
def test_learning_reads_nothing_of_its_own(device: Device, speculation: Speculation, requests: int, costs: ForwardCosts) -> None:
    found = device.run(speculation.planner(DEPTH, costs), device.requests(requests))
    assert any(report.draft_forwards for report, _ in found)
    assert [reads for _, reads in found] == [1] * len(found)


class Raising(Planner):
    """Ranks with a bonus whatever it has learned."""

    def bonus(self, state: DraftRound) -> float:
        return 1.5 if Given.LAST in state.offered else 0.0


@pytest.mark.parametrize("known", [1, 3])
def test_what_was_kept_before_is_ranked_higher_without_reading(device: Device, speculation: Speculation, known: int) -> None:
    """Of three users, so many were asked for before, with another history."""
    requests = [replace(request, cache_key=request.request_id) for request in device.requests(4)]
    asked, before = requests[:3], [replace(request, prompt=requests[3].prompt) for request in requests[:known]]
    plan = Raising(COSTS[2], speculation.tries[DEPTH].mean_fan_out)
    found = device.run(plan, asked, before)
    assert any(report.draft_forwards for report, _ in found)
    assert [reads for _, reads in found] == [1] * len(found)
    plain = lists(report for report, _ in device.run("none", asked))
    assert {name: [item.item for item in result.items] for name, result in lists(report for report, _ in found).items()} == {
        name: [item.item for item in result.items] for name, result in plain.items()
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.verification.value)
@pytest.mark.parametrize("plan", ["none", "beam:12"])
def test_an_explanation_reads_each_level_when_its_list_is_finished(device: Device, plan: str, rule: SearchRule) -> None:
    asked = [replace(request, explain=20 if number % 2 else None) for number, request in enumerate(device.requests(4, rule))]
    for report, reads in device.run(plan, asked):
        explained = [result for result in report.finished if int(result.request_id) % 2]
        assert reads == 1 + DEPTH * len(explained)
        for result in explained:
            check_explained(result, asked[int(result.request_id)], device.identifiers, is_read=False)


@pytest.mark.parametrize("rule", RULES[:2], ids=lambda rule: rule.verification.value)
def test_texts_are_read_once_a_step_however_many_there_are(device: Device, rule: SearchRule) -> None:
    """Beside the read of the searches that share the step."""
    asked = [
        replace(request, think=Think(2 + number, np.array([1, 1]), rule=rule) if number else None)
        for number, request in enumerate(device.requests(6))
    ]
    found = device.run("trie", asked)
    texts = [bool(report.thought_tokens) for report, _ in found]
    searched = [bool(report.tokens > report.thought_tokens) for report, _ in found]
    assert any(texts)
    assert not all(texts)
    assert [reads for _, reads in found] == [1 + text if some else 1 for text, some in zip(texts, searched, strict=True)]


def test_candidates_are_read_once_a_step_however_many_there_are(device: Device, speculation: Speculation) -> None:
    """Beside the read of the searches: those that are scored, and those of blended lists when these are finished."""
    trie, items = speculation.tries[DEPTH], np.arange(0, 150, 3)
    plain, *others = device.requests(5)
    scored = [replace(request, k=1, beam_width=1, scored=Scored.of(trie, items)) for request in others[:2]]
    blended = [replace(request, blend=Blend.of(trie, items, np.ones(len(items)), 0.5)) for request in others[2:]]
    found = device.run("none", [plain, *scored, *blended])
    ends = [any(result.blend is not None for result in report.finished) for report, _ in found]
    assert found[0][0].scored_nodes
    assert any(ends)
    assert [reads for _, reads in found] == [1 + bool(report.scored_nodes) + end for (report, _), end in zip(found, ends, strict=True)]


@pytest.mark.parametrize("plan", ["none", "beam:12+children"])
def test_filters_and_reserved_places_read_nothing_more_but_a_mask_once(device: Device, plan: str) -> None:
    """The mask is read when children are drafted under it, and when its request excludes items besides."""
    allowed = ItemSet.of_items(range(0, 150, 2), 150)
    first, second = device.requests(2)
    free = replace(first, excluded_items=np.empty(0, np.int64), allowed_items=allowed)
    reserved = replace(second, excluded_items=np.empty(0, np.int64), reserved=ReservedPlaces(3, allowed))
    found = device.run(plan, [free, reserved])
    assert sum(reads - 1 for _, reads in found) == (plan != "none")


@pytest.mark.parametrize("plan", ["none", "trie", "beam:40", "beam:12+children"])
def test_lists_are_those_of_a_processor(device: Device, speculation: Speculation, plan: str) -> None:
    requests = [request for number, rule in enumerate(RULES) for request in renamed(device.requests(3, rule), number)]
    ours = lists(report for report, _ in device.run(plan, requests))
    engine = speculation.engine(DEPTH, plan)
    for request in requests:
        engine.add(request)
    theirs = lists(steps(engine))
    assert [item.item for result in ours.values() for item in result.items] == [item.item for name in ours for item in theirs[name].items]


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "llama4_text"])
def test_no_forward_of_any_family_reads(speculation: Speculation, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2's looks for padding, Gemma 2 has windows and caps, and the rule of Llama 4's chunks keeps tensors on the device."""
    monkeypatch.setattr("verification.hosts.attention.HAS_TRITON", False)
    folder = save_family_model(tmp_path, speculation.catalog, family)
    # An id that prompts begin with, so that the first look would find it.
    model = TransformersHost(folder, dtype="float32", slots=1024).model
    model.config.pad_token_id = 1
    with stand_in() as device:
        engine = SpeculativeBeamEngine(
            TransformersHost.from_model(model.to(DEVICE), 1024), ItemTrie.build(speculation.identifiers[:, :DEPTH], DEVICE)
        )
        engine.add(BeamRequest("0", np.array([1, 4, 5]), K, K))
        for _ in range(DEPTH):
            with device.policed():
                engine.step()
            assert device.reads == 1
    assert not engine.running


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (lambda tensor: tensor[0].item(), "_local_scalar_dense waits"),
        (lambda tensor: tensor.tolist(), "no step plans it"),
        (lambda tensor: tensor.cpu(), "no step plans it"),
        (lambda tensor: bool(tensor.any()), "waits"),
        (lambda tensor: tensor.nonzero(), "nonzero waits"),
        (lambda tensor: tensor[tensor > 0], "index of truth values"),
        (lambda tensor: tensor[tensor[1]], "single number on the device is read"),
        (lambda tensor: tensor.unique(), "waits"),
        (lambda tensor: tensor + torch.ones(4), "a tensor of the host"),
        (lambda tensor: tensor[torch.zeros(2, dtype=torch.int64)], "a tensor of the host"),
        (lambda tensor: torch.zeros(4).to(tensor.device), "copy to the device waits"),
        (lambda tensor: torch.tensor([1.0], device=tensor.device), "copy to the device waits"),
        (lambda tensor: tensor.copy_(torch.zeros(4)), "copy to the device waits"),
    ],
)
def test_what_a_gpu_would_punish_is_found(
    device: Device, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Tensor], object], sentence: str
) -> None:
    """Planted in the middle of a step, and not found without."""
    score = TransformersHost.score

    def planted(host: TransformersHost, batch: object) -> Tensor:
        plant(torch.arange(4, device=DEVICE))
        return score(host, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(TransformersHost, "score", planted)
    with pytest.raises(Punished, match=sentence):
        device.run("none", device.requests(1))


def test_planned_reads_and_copies_that_do_not_wait_are_none_of_its_business() -> None:
    with stand_in() as device, device.policed():
        sent = on_device(np.arange(4), DEVICE)
        assert isinstance(sent, DeviceTensor)
        assert sent.device == DEVICE
        (read,) = on_host([sent + 1])
        assert read.tolist() == [1, 2, 3, 4]
        assert device.reads == 1


def renamed(requests: list[BeamRequest], number: int) -> list[BeamRequest]:
    return [replace(request, request_id=f"{number}/{request.request_id}") for request in requests]


def steps(engine: SpeculativeBeamEngine) -> Iterator[StepReport]:
    while engine.running:
        yield engine.step()


def lists(reports: Iterable[StepReport]) -> dict[str, BeamResult]:
    return {result.request_id: result for report in reports for result in report.finished}
