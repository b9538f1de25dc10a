"""HTTP schemas of scores: what the model makes of items that a request names.

Invariant: as that of `server.schemas.recommendations`.
"""

from typing import Annotated

from pydantic import BaseModel, Field

from drafting.beam.rule import Normalisation
from server.schemas.body import Id, Several, examples
from server.schemas.given import AskedUser
from server.schemas.recommendations import MAX_TIMEOUT_MS
from server.schemas.usage import TimingAnswer, UsageAnswer

MAX_SCORED = 10_000


class ScoreRequest(AskedUser):
    """A user, and the items to score for them."""

    model_config = examples(
        {"user_id": "42", "items": ["172", "50", "1"]},
        {"history": ["50", "181", "174"], "items": ["172", "1"], "context": {"device": "tv"}, "timeout_ms": 2000},
    )

    items: Several[Id] = Field(min_length=1, max_length=MAX_SCORED, description="Ids of the items to score.")
    strict_ids: bool = Field(
        default=False,
        description="Whether a request that names an item which the catalog does not have, in `items`, `history` or `behaviours`, is "
        "refused; by default such items are passed over, and `note` says so.",
    )
    # A strict model takes no name for a member, which is all that JSON can bring.
    normalise: Annotated[Normalisation, Field(strict=False)] | None = Field(
        default=None, description="What scores are normalised over, as in a list; the server's setting by default."
    )
    timeout_ms: int | None = Field(
        default=None, ge=1, le=MAX_TIMEOUT_MS, description="Longest wait for the answer, milliseconds; the server's setting by default."
    )


class ScoredItem(BaseModel):
    """What the model makes of one item."""

    item_id: str
    score: float = Field(
        description="Log-probability of the item's identifier after the history, natural logarithm: what a strict list says of it."
    )
    rank: int = Field(
        description="1 for the best identifier among those asked for. Items that share an identifier share its rank, and so do identifiers "
        "whose scores are the same number."
    )


class ScoreAnswer(BaseModel):
    """The scores of all items asked for that the catalog has, in the order of the request."""

    model_config = examples(
        {
            "id": "scores-5f0c3a1e9b7d4c2f8a6e1d0b3c5f7a9e",
            "model": "ml-100k-target",
            "catalog_version": "1a2b3c4d5e6f",
            "precision": "float32",
            "exact": True,
            "items": [
                {"item_id": "172", "score": -2.31, "rank": 1},
                {"item_id": "50", "score": -7.04, "rank": 3},
                {"item_id": "1", "score": -4.9, "rank": 2},
            ],
            "usage": {
                "prompt_tokens": 81,
                "cached_tokens": 80,
                "target_forwards": 1,
                "draft_forwards": 0,
                "accepted_steps": 0,
                "drafted_nodes": 0,
                "plan": "none",
                "candidates": 3,
            },
            "timing_ms": {"history": 0.4, "queue": 0.2, "engine": 6.1, "total": 7.2},
        }
    )

    id: str
    model: str
    catalog_version: str
    precision: str = Field(description="As in a list.")
    exact: bool = Field(description="As in a strict list: whether the same request gets the same scores, whatever else the server does.")
    items: list[ScoredItem]
    usage: UsageAnswer
    timing_ms: TimingAnswer
    note: str | None = Field(default=None, description="What to know about these scores; left out if there is nothing.")
