"""HTTP schemas of explained lists: what the search considered on its way, as a tree.

Invariant: as that of `server.schemas.recommendations`; an answer is bounded by its request.
"""

from pydantic import BaseModel, Field

from server.schemas.body import examples
from server.schemas.comparisons import ItemName
from server.schemas.recommendations import RecommendationAnswer, RecommendationRequest
from verification.explanation import MOST_OTHERS

OTHERS = 20


class ExplainRequest(RecommendationRequest):
    """A recommendation request whose list is explained."""

    model_config = examples({"user_id": "42", "k": 5, "beam_width": 10}, {"history": ["50", "181", "174"], "k": 3, "others": 5})

    others: int = Field(
        default=OTHERS, ge=0, le=MOST_OTHERS, description="How many prefixes beside the beam each level tells, the most likely ones."
    )


class ExplainedNode(BaseModel):
    """A prefix of identifiers: a node of the catalog's trie."""

    node: int = Field(description="Its number in the version of the catalog that the answer names; the root, the empty prefix, is 0.")
    parent: int = Field(description="The node of the prefix without its last token, which the level above tells.")
    token: str = Field(description="The last token.")
    log_prob: float = Field(
        description="Cumulative log-probability, natural logarithm, under the distribution that the scores of the list are of."
    )
    in_beam: bool = Field(description="Whether the model's search went on with it; on the last level, whether it found it.")
    rank: int | None = Field(default=None, description="Rank in the beam, 1 for the best; left out for prefixes beside it.")
    drafted: bool = Field(description="Whether a draft had proposed it before the model selected.")
    accepted: bool = Field(description="Whether it was drafted and is in the beam.")
    candidate: bool | None = Field(default=None, description="True on the way to a candidate of a blended list; left out for others.")
    items_below: int = Field(description="How many items of the catalog have this prefix.")
    items: list[ItemName] | None = Field(
        default=None,
        description="Only on the last level: the items of the list that have this identifier, or where it is not in the list the first ten "
        "of the catalog that have it, whether or not they may be returned.",
    )


class ExplainedLevelAnswer(BaseModel):
    """One level of the search."""

    depth: int = Field(description="Tokens of the prefixes, from 1 on.")
    forward: int = Field(
        description="Which forward of the model verified it, 1 for the first; forwards that wrote text before the list don't count."
    )
    accepted: bool = Field(description="True if the whole beam was in the tree already, so that the next level needed no forward.")
    considered: int = Field(description="Eligible continuations of the beam above, from which the model selected.")
    drafted: int = Field(description="Prefixes that were drafted here for the model to verify.")
    used: int = Field(description="Those of them that came into the beam.")
    truncated: bool = Field(description="True if a continuation of the beam above, or a drafted prefix, is left out.")
    nodes: list[ExplainedNode] = Field(description="The beam, best first, then others, the most likely first.")


class ExplanationAnswer(BaseModel):
    """The tree that the search for a list considered, level by level.

    With `diversity` it is that of the first round; `usage` counts all `usage.rounds` of them.
    """

    others: int = Field(
        description="The bound of the request: at most so many prefixes beside the beam, and candidates of a blend, a level."
    )
    paths: list[list[int]] = Field(description="The nodes of each identifier of the list, from the first level to the last; by rank.")
    levels: list[ExplainedLevelAnswer]
    fresh_levels: list[ExplainedLevelAnswer] | None = Field(
        default=None, description="The second search of a list with `fresh`, among the fresh items alone; left out for other lists."
    )
    truncated: bool = Field(description="True if any level is.")


class ExplainedAnswer(RecommendationAnswer):
    """A recommendation list, and the tree that it was found in."""

    model_config = examples(
        {
            "id": "rec-5f0c3a1e9b7d4c2f8a6e1d0b3c5f7a9e",
            "model": "ml-100k-target",
            "catalog_version": "1a2b3c4d5e6f",
            "precision": "float32",
            "exact": True,
            "verification": "strict",
            "items": [{"item_id": "172", "identifier": ["<a_3>", "<b_7>"], "score": -2.25, "rank": 1}],
            "usage": {
                "prompt_tokens": 81,
                "cached_tokens": 0,
                "target_forwards": 1,
                "draft_forwards": 1,
                "accepted_steps": 1,
                "drafted_nodes": 2,
                "plan": "beam:2",
            },
            "timing_ms": {"history": 0.4, "queue": 0.2, "engine": 14.1, "total": 15.3},
            "explanation": {
                "others": 0,
                "paths": [[4, 61]],
                "levels": [
                    {
                        "depth": 1,
                        "forward": 1,
                        "accepted": True,
                        "considered": 8,
                        "drafted": 2,
                        "used": 1,
                        "truncated": True,
                        "nodes": [
                            {
                                "node": 4,
                                "parent": 0,
                                "token": "<a_3>",
                                "log_prob": -1.5,
                                "in_beam": True,
                                "rank": 1,
                                "drafted": True,
                                "accepted": True,
                                "items_below": 31,
                            }
                        ],
                    },
                    {
                        "depth": 2,
                        "forward": 1,
                        "accepted": False,
                        "considered": 12,
                        "drafted": 0,
                        "used": 0,
                        "truncated": True,
                        "nodes": [
                            {
                                "node": 61,
                                "parent": 4,
                                "token": "<b_7>",
                                "log_prob": -2.25,
                                "in_beam": True,
                                "rank": 1,
                                "drafted": False,
                                "accepted": False,
                                "items_below": 1,
                                "items": [{"item_id": "172"}],
                            }
                        ],
                    },
                ],
                "truncated": True,
            },
        }
    )

    explanation: ExplanationAnswer | None = Field(
        default=None, description="Left out for a list of popular items, which no search has found."
    )
