"""Lists with a tolerance over HTTP: within their bound, and `exact` where it allows no difference."""

import math
from typing import Any

import pytest

from tests.server.server_process import ServerProcess, assert_problem

BODY = {"history": ["item-3", "item-14", "item-15"], "k": 5}


def answer_to(server: ServerProcess, **more: Any) -> dict[str, Any]:
    response = server.recommend(**BODY, **more)
    assert response.status_code == 200, response.text
    return response.json()


def scores(answer: dict[str, Any]) -> dict[tuple[str, ...], float]:
    return {tuple(line["identifier"]): line["score"] for line in answer["items"]}


@pytest.mark.parametrize("bound", [{"items": 0}, {"items": 2}, {"mass": 0}, {"mass": 0.3}])
def test_a_list_is_within_its_tolerance_and_says_whether_it_is_exact(server: ServerProcess, bound: dict[str, float]):
    plain, answer = answer_to(server), answer_to(server, tolerance=bound)
    assert plain["exact"]
    assert answer["exact"] is not any(bound.values())
    assert answer["verification"] == "strict"
    assert "note" not in answer
    exact, found = scores(plain), scores(answer)
    assert len(found) == 5
    missing = sum(math.exp(score) for name, score in exact.items() if name not in found)
    assert len(exact.keys() - found.keys()) <= bound.get("items", 5)
    assert missing <= bound.get("mass", 1) * sum(map(math.exp, exact.values())) + 1e-5
    if not any(bound.values()):
        assert [line["item_id"] for line in answer["items"]] == [line["item_id"] for line in plain["items"]]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"tolerance": {"items": 5}}, "tolerance.items must be less than k, got items = 5 and k = 5."),
        ({"tolerance": {"items": 1, "mass": 0.1}}, "The tolerance names items and mass: give one of them."),
        ({"tolerance": {}}, "The tolerance names neither items nor mass."),
        (
            {"tolerance": {"mass": 0.1}, "verification": "gumbel"},
            "Only strict lists have a tolerance: leave it out, or choose strict verification.",
        ),
    ],
)
def test_bounds_that_make_no_sense(server: ServerProcess, more: dict[str, Any], sentence: str):
    assert_problem(server.recommend(**BODY, **more), 422, sentence)
