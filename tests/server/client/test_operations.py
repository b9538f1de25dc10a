"""Every operation of the OpenAPI page has a method on both clients, each written once."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

from server.client import AsyncAtspeedClient, AtspeedClient, lists, operations, users
from server.client.operation import Operation, Repeat
from server.http.app import build_api
from server.schemas.recommendations import RecommendationRequest
from server.schemas.scores import ScoreRequest
from tests.server.http.test_app import Bench

ARGUMENTS: dict[str, dict[str, Any]] = {
    "activate": {"version": "v", "by": "me"},
    "add_items": {"new_items": []},
    "append_events": {"user_id": "u", "events": []},
    "delete_events": {"user_id": "u"},
    "difference": {"version": "v"},
    "filter": {"name": "f"},
    "filter_sample": {"name": "f"},
    "forget_catalog": {"version": "v"},
    "forget_filter": {"name": "f"},
    "forget_history": {"user_id": "u"},
    "forget_profile": {"user_id": "u"},
    "forget_user": {"user_id": "u"},
    "history": {"user_id": "u"},
    "item": {"item_id": "i"},
    "items_like": {"item_id": "i"},
    "profile": {"user_id": "u"},
    "put_catalog": {"version": "v", "path": "p"},
    "put_filter": {"name": "f"},
    "put_profile": {"user_id": "u", "profile": {}},
    "recommend_many": {"requests": []},
    "restore_control": {"file": Path("control.backup")},
    "score": {"items": ["i"]},
    "upload_catalog": {"version": "v", "file": Path("c.jsonl")},
}
# Not of one operation.
HELPERS = {"append_histories", "close", "has_key", "run", "url", "use_key", "wait_until_ready"}


def makers() -> dict[str, Callable[..., Operation[Any]]]:
    """The functions that make one, by name."""
    return {
        name: function
        for module in (lists, operations, users)
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def parameters(make: Callable[..., Operation[Any]]) -> list[str]:
    return list(inspect.signature(make).parameters)


def test_every_operation_of_the_page_has_a_method():
    paths = build_api(Bench().services).openapi()["paths"]
    documented = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {make(**ARGUMENTS.get(name, {})).route for name, make in makers().items()} == documented


def test_every_operation_is_asked_of_a_real_server_through_both_clients():
    contract = Path(__file__).with_name("test_contract.py").read_text()
    called = set(re.findall(r'face\.call\(\s*"(\w+)"', contract))
    assert makers().keys() - called == set()


@pytest.mark.parametrize("face", [AtspeedClient, AsyncAtspeedClient])
def test_both_clients_have_a_method_for_each_operation(face: type):
    methods = {name for name in vars(face) if not name.startswith("_")}
    assert methods == makers().keys() | HELPERS
    for name, make in makers().items():
        method = vars(face)[name]
        assert method.__doc__ == make.__doc__
        assert list(inspect.signature(method).parameters)[1:] == parameters(make)
        assert inspect.iscoroutinefunction(method) == (face is AsyncAtspeedClient)


def test_what_others_may_have_changed_meanwhile_is_not_changed_twice():
    never_twice = {name for name, make in makers().items() if make(**ARGUMENTS.get(name, {})).repeat is Repeat.IF_NOT_BEGUN}
    assert {"activate", "roll_back", "restore_control"} <= never_twice


def test_every_change_that_can_wait_for_all_replicas_does_and_tells_who_lacks_it():
    paths = build_api(Bench().services).openapi()["paths"]
    documented = {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method, operation in methods.items()
        if any(parameter["name"] == "wait" for parameter in operation.get("parameters", []))
    }
    made = [make(**ARGUMENTS.get(name, {}), everywhere=True) for name, make in makers().items() if "everywhere" in parameters(make)]
    assert {operation.route for operation in made} == documented
    for operation in made:
        assert operation.target.endswith("?wait=all")
        # The answer that some lack it would be lost.
        assert operation.repeat is Repeat.IF_NOT_BEGUN
    assert operations.activate("v", "me").target == "/v1/catalogs/v/activate"
    assert operations.forget_filter("f").repeat is Repeat.ALWAYS


def test_a_list_can_be_asked_for_with_every_field():
    assert set(lists.Recommendation.__annotations__) == set(RecommendationRequest.model_fields)


def models_in(annotation: Any) -> set[type[BaseModel]]:
    """The models that a type allows."""
    if parts := get_args(annotation):
        return set[type[BaseModel]]().union(*map(models_in, parts))
    return {annotation} if isinstance(annotation, type) and issubclass(annotation, BaseModel) else set()


def test_what_is_an_object_may_be_its_model():
    hints = get_type_hints(lists.Recommendation)
    for name, field in RecommendationRequest.model_fields.items():
        assert models_in(field.annotation) <= models_in(hints[name]), name


def test_scores_can_be_asked_for_with_every_field():
    assert set(lists.Scoring.__annotations__) | {"items"} == set(ScoreRequest.model_fields)
