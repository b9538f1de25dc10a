"""Calls for lists and for scores, each written once, as in `server.client.operations`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from server.client.operation import Answer, Operation
from server.schemas.batches import BatchAnswer
from server.schemas.choices import BlendBody, DiversityBody, FilterBody, FreshBody, ThinkBody, ToleranceBody
from server.schemas.explanations import OTHERS, ExplainedAnswer
from server.schemas.given import GivenEvent
from server.schemas.recommendations import MAX_TIMEOUT_MS, RecommendationAnswer, RecommendationRequest
from server.schemas.scores import ScoreAnswer

Facts = Mapping[str, Any]
# An item id, or an item id and what else is known.
GivenEntry = str | GivenEvent | Facts


class Asked(TypedDict, total=False):
    """The fields of requests that are about a user; give `user_id` or `history`."""

    user_id: str
    history: Sequence[GivenEntry]
    behaviours: Mapping[str, Sequence[GivenEntry]]
    profile: Facts
    context: Facts
    strict_ids: bool
    timeout_ms: int


class Scoring(Asked, total=False):
    """The fields of a `ScoreRequest` besides its items, which says what they mean."""

    normalise: str


class Recommendation(Asked, total=False):
    """The fields of a `RecommendationRequest`, which says what they mean."""

    k: int
    beam_width: int
    beam_widths: Sequence[int]
    normalise: str
    format: str
    filter: str | FilterBody | Facts
    fresh: FreshBody | Facts
    diversity: DiversityBody | Facts | Sequence[DiversityBody | Facts]
    blend: BlendBody | Facts
    fields: Sequence[str]
    exclude: Sequence[str]
    exclude_history: bool
    verification: str
    seed: int
    temperature: float
    tolerance: ToleranceBody | Facts
    think: ThinkBody | Facts


def recommend(*, deadline: float | None = None, **fields: Unpack[Recommendation]) -> Operation[RecommendationAnswer]:
    """A list for a user, such as `recommend(user_id="42", k=10, exclude_history=True)`.

    Args:
        deadline: seconds for the whole call, retries included; the server is told what is left of it as `timeout_ms`.
        fields: as in `RecommendationRequest`.
    """
    return _list("POST /v1/recommendations", RecommendationAnswer.model_validate_json, {**fields}, deadline)


def explain(*, others: int = OTHERS, deadline: float | None = None, **fields: Unpack[Recommendation]) -> Operation[ExplainedAnswer]:
    """A list for a user, and the tree that it was found in, such as `explain(user_id="42", k=10)`.

    Args:
        others: prefixes beside the beam that each level tells.
        deadline, fields: as in `recommend`.
    """
    return _list("POST /v1/recommendations:explain", ExplainedAnswer.model_validate_json, {**fields, "others": others}, deadline)


def score(items: Sequence[str], *, deadline: float | None = None, **fields: Unpack[Scoring]) -> Operation[ScoreAnswer]:
    """Log-probabilities and ranks of up to 10,000 items for a user, such as `score(["172", "50"], user_id="42")`, in the order given.

    Args:
        items: ids.
        deadline: as in `recommend`.
        fields: as in `ScoreRequest`.
    """
    return _list("POST /v1/scores", ScoreAnswer.model_validate_json, {**fields, "items": items}, deadline)


def recommend_many(requests: Sequence[Recommendation | RecommendationRequest], *, deadline: float | None = None) -> Operation[BatchAnswer]:
    """Up to 256 lists at once, in the order of the requests; each entry of the answer has its list or its problem.

    Args:
        requests: dictionaries with the arguments of `recommend`, or models.
        deadline: as in `recommend`.
    """

    def body(left: float | None) -> Any:
        entries: list[Any] = [
            request.model_dump(mode="json", by_alias=True, exclude_unset=True) if isinstance(request, RecommendationRequest) else request
            for request in requests
        ]
        if left is not None:
            entries = [_within(left, entry) for entry in entries]
        return {"requests": entries}

    return Operation("POST /v1/recommendations:batch", BatchAnswer.model_validate_json, body=body, timed=True, deadline=deadline)


def _list(route: str, read: Callable[[bytes], Answer], body: dict[str, Any], deadline: float | None) -> Operation[Answer]:
    """One answer for one user, by any of the routes that give one; the server refuses an id that is no text."""
    user = body.get("user_id")
    return Operation(
        route,
        read,
        body=lambda left: body if left is None else _within(left, body),
        user=user if isinstance(user, str) else None,
        timed=True,
        deadline=deadline,
    )


def _within(left: float, body: dict[str, Any]) -> dict[str, Any]:
    """A request that is told the seconds that are left for it."""
    return {**body, "timeout_ms": _timeout_ms(left, body.get("timeout_ms"))}


def _timeout_ms(left: float, asked: int | None) -> int:
    """Milliseconds for the server: what is left, or what was asked for if that is less; at least 1, and no more than it takes."""
    most = min(max(int(1000 * left), 1), MAX_TIMEOUT_MS)
    return most if asked is None else min(asked, most)
