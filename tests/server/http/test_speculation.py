"""A real server with a draft: the three verifications over HTTP, what they cost, and what Prometheus reads of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.catalog.catalog import Catalog
from server.schemas.recommendations import RecommendationAnswer
from tests.models import save_random_model
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess, alike, assert_problem
from verification.recommender import Recommender

HISTORY = ["item-3", "item-14", "item-15"]
INDICES = [3, 14, 15]
WIDTH = 12
K = 6


@pytest.fixture(scope="session")
def draft_dir(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draft that disagrees with the target, so that levels are rejected too."""
    return save_random_model(tmp_path_factory.mktemp("models") / "draft", catalog, hidden=32, layers=1, max_items=5, seed=1)


@pytest.fixture(scope="module")
def speculating(model_flags: list[str], draft_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags = ["--draft", str(draft_dir), "--plan", f"beam:{WIDTH}", "--histories", "memory://", "--timeout-ms", "20000"]
    with ForkedServer(tmp_path_factory.mktemp("speculating"), *model_flags, *flags) as server:
        yield server.wait_until_ready()


@pytest.fixture(scope="module")
def expected(model_dir: Path, catalog: Catalog, draft_dir: Path) -> Iterator[Callable[[SearchRule, bool], list[int]]]:
    """The list that a recommender in this process makes, with the server's draft or without any."""
    drafting = Recommender.load(model_dir, catalog, draft=draft_dir, plan=f"beam:{WIDTH}", threads=1, kv_memory_gib=0.01)
    plain = Recommender.load(model_dir, catalog, threads=1, kv_memory_gib=0.01)

    def items(rule: SearchRule, drafts: bool) -> list[int]:
        (found,) = (drafting if drafts else plain).recommend([INDICES], K, WIDTH if rule == STRICT else K, rule=rule)
        return [item.item for item in found.items]

    yield items
    drafting.close()
    plain.close()


def ask(server: ServerProcess, **body: Any) -> RecommendationAnswer:
    response = server.recommend(**({"history": HISTORY, "k": K} | body))
    assert response.status_code == 200, response.text
    return RecommendationAnswer.model_validate_json(response.content, extra="forbid")


def indices(answer: RecommendationAnswer) -> list[int]:
    return [int(line.item_id.removeprefix("item-")) for line in answer.items]


def test_a_strict_list_is_the_plain_one_and_says_what_the_draft_did(
    speculating: ServerProcess, expected: Callable[[SearchRule, bool], list[int]]
):
    for body in ({}, {"verification": "strict"}):
        answer = ask(speculating, **body)
        assert indices(answer) == expected(SearchRule(), False)
        assert (answer.verification, answer.seed, answer.note) == (Verification.STRICT, None, None)
        usage = answer.usage
        assert usage.plan == f"beam:{WIDTH}"
        assert usage.draft_forwards >= 2
        assert usage.drafted_nodes >= WIDTH
        assert usage.target_forwards + usage.accepted_steps == 3


@pytest.mark.parametrize("verification", ["gumbel", "relaxed"])
def test_a_seed_makes_a_sample_repeatable(speculating: ServerProcess, expected: Callable[[SearchRule, bool], list[int]], verification: str):
    rule = SearchRule(Verification(verification), seed=2**53 - 1, temperature=2.0)
    answer = ask(speculating, verification=verification, seed=rule.seed, temperature=2)
    assert indices(answer) == expected(rule, True)
    assert (answer.verification, answer.seed) == (rule.verification, rule.seed)
    others = [indices(ask(speculating, verification=verification, seed=seed, temperature=2)) for seed in range(5)]
    assert any(items != indices(answer) for items in others)


def test_a_gumbel_sample_owes_nothing_to_the_draft(speculating: ServerProcess, expected: Callable[[SearchRule, bool], list[int]]):
    assert indices(ask(speculating, verification="gumbel", seed=5)) == expected(SearchRule(Verification.GUMBEL, 5), False)


def test_without_a_seed_each_sample_has_one_of_its_own_to_ask_for_again(speculating: ServerProcess):
    first, second = (ask(speculating, verification="gumbel") for _ in range(2))
    assert first.seed is not None
    assert first.seed != second.seed
    assert first.note is None
    again = ask(speculating, verification="gumbel", seed=first.seed)
    assert [line.model_dump() for line in again.items] == alike([line.model_dump() for line in first.items])


def test_a_relaxed_list_says_what_it_is(speculating: ServerProcess):
    answer = ask(speculating, verification="relaxed", history=["item-1"] * 6)
    assert answer.note is not None
    assert answer.note.startswith("Relaxed verification is not distribution-preserving: which items are sampled also depends on the draft.")
    assert answer.note.endswith("The model reads at most the newest 5 of the 6 items in the history.")


@pytest.mark.parametrize("body", [{"k": WIDTH + 1}, {"k": 1, "beam_width": WIDTH + 1}])
def test_more_prefixes_than_the_plan_drafts_are_refused(speculating: ServerProcess, body: dict[str, int]):
    sentence = (
        f"The plan beam:{WIDTH} drafts fewer prefixes than the {WIDTH + 1} that this request keeps: "
        f"ask for at most {WIDTH} (k and beam_width), or serve with a wider plan."
    )
    assert_problem(speculating.recommend(history=HISTORY, **body), 422, sentence)


def test_prometheus_sees_what_speculation_costs_and_saves(speculating: ServerProcess):
    def metrics() -> dict[str, float]:
        labels = {"plan": f"beam:{WIDTH}", "verification": "gumbel"}
        return {
            "lists": speculating.metric("atspeed_plan_decisions_total", **labels),
            "target": speculating.metric("atspeed_target_forwards_total", **labels),
            "depth 1": speculating.metric("atspeed_accepted_steps_total", depth="1", **labels),
            "depth 2": speculating.metric("atspeed_accepted_steps_total", depth="2", **labels),
            "drafted": speculating.metric("atspeed_drafted_nodes_total"),
            "wasted": speculating.metric("atspeed_wasted_nodes_total"),
        }

    before = metrics()
    answers = [ask(speculating, verification="gumbel", seed=seed, k=3) for seed in range(20)]
    after = metrics()
    change = {name: after[name] - before[name] for name in after}
    assert change["lists"] == 20
    assert change["target"] == sum(answer.usage.target_forwards for answer in answers)
    assert change["depth 1"] + change["depth 2"] == sum(answer.usage.accepted_steps for answer in answers) > 0
    assert change["drafted"] == sum(answer.usage.drafted_nodes for answer in answers)
    assert 0 < change["wasted"] < change["drafted"]
    assert speculating.metric("atspeed_draft_up") == 1
    assert speculating.metric("atspeed_drafts_dropped_total") == 0
    steps = speculating.metric("atspeed_step_seconds_count")
    for name in ("target", "draft"):
        assert speculating.metric(f"atspeed_{name}_seconds_count") == steps
        assert 0 < speculating.metric(f"atspeed_{name}_seconds_sum") < speculating.metric("atspeed_step_seconds_sum")
    assert speculating.metric("atspeed_draft_tokens_total") > speculating.metric("atspeed_draft_forwards_total") > 0
