"""HTTP schemas of recommendations: bodies and answers, with the examples of the OpenAPI page.

Invariant: a body that passes these models needs only the catalog to be judged further; every rule on a single body is here, and its message
is a sentence or completes one ("k must be …").
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from drafting.beam.rule import LARGEST_JSON_INTEGER, LONGEST_LIST, WIDEST_BEAM, Normalisation, Verification
from drafting.errors import quoted
from server.schemas.body import Id, Name, Several, examples
from server.schemas.choices import MAX_CAPS, BlendBody, Diversity, FilterBody, FreshBody, ThinkBody, ToleranceBody, with_name, with_one
from server.schemas.given import AskedUser
from server.schemas.usage import TimingAnswer, UsageAnswer
from verification.lengths import check_lengths
from verification.result import Source

MAX_EXCLUDED = 100_000
MAX_FIELDS = 50
MAX_TIMEOUT_MS = 60_000
# More than any identifier has tokens.
MAX_LEVELS = 64


class RecommendationRequest(AskedUser):
    """Whom to recommend for, and what."""

    model_config = examples(
        {"user_id": "42", "k": 10, "exclude_history": True},
        {"history": ["50", "181", "174"], "k": 5, "beam_width": 20, "exclude": ["172"], "timeout_ms": 200},
        {"user_id": "42", "k": 200, "beam_widths": [16, 64, 200], "format": "ids"},
        {"user_id": "42", "k": 10, "verification": "gumbel", "seed": 7, "temperature": 0.8},
        {"user_id": "42", "k": 10, "filter": {"all": ["in stock"], "not": ["adult"]}},
        {"user_id": "42", "k": 10, "fresh": {"max_age_days": 7, "min": 2}},
        {"user_id": "42", "k": 10, "diversity": {"attribute": "brand", "at_most": 2}},
        {"user_id": "42", "k": 10, "exclude_history": True, "blend": {"weight": 0.5, "candidates": 100}},
        {"user_id": "42", "k": 10, "context": {"query": "rainy evening", "device": "tv", "hour": 21}},
        {
            "history": ["50", {"item_id": "181", "kind": "watch", "value": 5400, "timestamp": 1795400000, "attributes": {"device": "tv"}}],
            "behaviours": {"buy": ["172", {"item_id": "174", "value": 2}]},
            "profile": {"country": "DE", "age": 34, "genres": ["drama", "war"]},
        },
        {"user_id": "42", "k": 10, "think": {"max_tokens": 256, "return_text": True}, "timeout_ms": 20000},
    )

    k: int = Field(
        default=10,
        ge=1,
        le=LONGEST_LIST,
        description="Identifiers to return; items that share an identifier share its rank. No more than the server's `--max-beam-width`.",
    )
    beam_width: int | None = Field(
        default=None,
        ge=1,
        le=WIDEST_BEAM,
        description="Prefixes that the search keeps, never less than `k`, and no more than the server's `--max-beam-width` (256 unless it "
        "says otherwise); the server's setting by default (50), or `k` where that is more or the list is sampled.",
    )
    beam_widths: Several[Annotated[int, Field(ge=1, le=WIDEST_BEAM)]] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_LEVELS,
        description="Prefixes that the search keeps at each level but the last, in place of `beam_width`; the last of them never less than "
        "`k`, nor any of a `gumbel` list. Where an upper one is smaller than `k`, a list without `diversity` may be shorter although more "
        "items are eligible, and `note` says so.",
    )
    filter: FilterBody | None = Field(
        default=None,
        description="Only items that pass are returned. The name of a filter may stand here as it is.",
        json_schema_extra=with_name,
    )
    fresh: FreshBody | None = Field(default=None, description="Places for fresh items, found inside the search. Only for `strict` lists.")
    diversity: Diversity | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CAPS,
        description="How many items of the list may have the same value of an attribute. Of a value that has as many, further items are "
        "passed over inside the search, and those of other values take their places. One cap may stand here as it is.",
        json_schema_extra=with_one,
    )
    blend: BlendBody | None = Field(
        default=None, description="Blend the list with the server's neighbour model (`--neighbours`). Only for `strict` lists."
    )
    format: Literal["full", "ids"] = Field(
        default="full",
        description="`ids` leaves of each item its id, its score and its rank, and what `fresh` and a blend say of it; long lists take "
        "less time so.",
    )
    fields: Several[Name] = Field(
        default_factory=list, max_length=MAX_FIELDS, description="Attributes of the catalog to tell of each item, such as `url`."
    )
    exclude: Several[Id] = Field(default_factory=list, max_length=MAX_EXCLUDED, description="Item ids that must not be returned.")
    exclude_history: bool = Field(default=False, description="Whether the items of the history must not be returned either.")
    strict_ids: bool = Field(
        default=False,
        description="Whether a request that names an item which the catalog does not have, in `history`, `behaviours` or `exclude`, is "
        "refused; by default such items are passed over, and `note` says so.",
    )
    # A strict model takes no name for a member, which is all that JSON can bring.
    verification: Annotated[Verification, Field(strict=False)] | None = Field(
        default=None,
        description=(
            "`strict`: exactly the list of plain beam search. `gumbel`: an exact sample without replacement. `relaxed`: the AtSpeed "
            "paper's sampling, which is not distribution-preserving. The server's setting by default."
        ),
    )
    normalise: Annotated[Normalisation, Field(strict=False)] | None = Field(
        default=None,
        description="What the list's scores are normalised over: the `vocabulary`, the tokens that the catalog has at a `level`, or the "
        "`children` of a prefix in the catalog. The server's setting by default, which follows how the model was trained.",
    )
    tolerance: ToleranceBody | None = Field(default=None, description="Let a `strict` list differ within a bound, for fewer forwards.")
    seed: int | None = Field(
        default=None, ge=0, le=LARGEST_JSON_INTEGER, description="The same seed gives the same sample; random by default. Not for `strict`."
    )
    temperature: float | None = Field(
        default=None,
        ge=0.01,
        le=100,
        allow_inf_nan=False,
        description="Below 1 sharpens, above 1 flattens what is sampled from; 1 by default. Not for `strict`.",
    )
    think: ThinkBody | None = Field(
        default=None,
        description="Let the model write text first, greedily, or sampled where the list is; the list is what follows it. For models whose "
        "`prompt.json` says how.",
    )
    timeout_ms: int | None = Field(
        default=None, ge=1, le=MAX_TIMEOUT_MS, description="Longest wait for the answer, milliseconds; the server's setting by default."
    )

    @property
    def widest(self) -> int | None:
        """The width of the beam, of its widest level if each has its own; None if neither is named."""
        return self.beam_width if self.beam_widths is None else max(self.beam_widths)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beam_widths is not None and self.beam_width is not None:
            raise ValueError("Give either beam_width or beam_widths, not both.")
        verification = self.verification or Verification.STRICT
        check_lengths(self.k, self.k if self.widest is None else self.widest, self.beam_widths, verification)
        if self.format == "ids" and self.fields:
            raise ValueError("The format ids has no fields: leave one of them out.")
        if self.fresh is not None and self.fresh.min > self.k:
            raise ValueError(f"fresh.min must be at most k, got min = {self.fresh.min} and k = {self.k}.")
        if self.tolerance is not None and (self.tolerance.items or 0) >= self.k:
            raise ValueError(f"tolerance.items must be less than k, got items = {self.tolerance.items} and k = {self.k}.")
        attributes = [cap.attribute for cap in self.diversity or ()]
        if twice := next((name for name in attributes if attributes.count(name) > 1), None):
            raise ValueError(f"diversity names the attribute {quoted(twice)} twice: give it one at_most.")
        return self


class RecommendedItem(BaseModel):
    """One line of the list."""

    item_id: str
    identifier: list[str] = Field(default=[], description="The tokens that the model generated for it; left out with `format: ids`.")
    score: float = Field(
        description=(
            "Log-probability of the identifier, natural logarithm: over the full vocabulary in a strict list, under the distribution that "
            "was sampled in the others; of a popular item its share of what was counted."
        )
    )
    rank: int = Field(description="1 for the best identifier; items that share an identifier share its rank.")
    title: str | None = Field(default=None, description="Left out for items without one.")
    fresh: bool | None = Field(default=None, description="True for a fresh item; left out for others, and where `fresh` is not asked for.")
    blend_score: float | None = Field(
        default=None, description="What a blended list is ranked by: `score` plus the weighted logarithm of the neighbour score."
    )
    source: Source | None = Field(
        default=None, description="Which models propose it, in a blended list: the `model`, the `neighbours` model, or `both`."
    )
    attributes: dict[str, Any] | None = Field(
        default=None, description="What `fields` asked for and the item has; only if it was asked for."
    )


class RecommendationAnswer(BaseModel):
    """A recommendation list, best first; one with `gumbel` verification in the order in which it was drawn."""

    model_config = examples(
        {
            "id": "rec-5f0c3a1e9b7d4c2f8a6e1d0b3c5f7a9e",
            "model": "ml-100k-target",
            "catalog_version": "1a2b3c4d5e6f",
            "precision": "bfloat16",
            "exact": False,
            "verification": "strict",
            "items": [
                {
                    "item_id": "172",
                    "identifier": ["<a_3>", "<b_7>", "<c_1>", "<d_0>"],
                    "score": -2.31,
                    "rank": 1,
                    "title": "Empire Strikes Back, The (1980)",
                }
            ],
            "usage": {
                "prompt_tokens": 81,
                "cached_tokens": 0,
                "target_forwards": 2,
                "draft_forwards": 3,
                "accepted_steps": 2,
                "drafted_nodes": 120,
                "plan": "auto:beam",
            },
            "timing_ms": {"history": 0.4, "queue": 0.2, "engine": 14.1, "total": 15.3},
        }
    )

    id: str
    model: str
    catalog_version: str
    precision: str = Field(description="Precision of the model's numbers: `float32`, `bfloat16` or `float16`.")
    exact: bool = Field(
        description="True if the same request gets the same list alone, with others, after a cached prompt and with any draft: in float32 "
        "(but for the order of scores closer than 1e-5) and with the server's option `--exact` (to the last bit in all that was tried); "
        "never with `relaxed`, nor where a tolerance above 0 was used."
    )
    source: Literal["popular"] | None = Field(
        default=None,
        description="`popular` for a list of popular items, which a user gets of whom nothing is known; left out for the model's lists.",
    )
    verification: Verification
    seed: int | None = Field(default=None, description="What the list was sampled with; left out for strict lists.")
    items: list[RecommendedItem]
    thought: str | None = Field(default=None, description="The text that the model wrote before the list; only if it was asked for.")
    usage: UsageAnswer
    timing_ms: TimingAnswer
    note: str | None = Field(default=None, description="What to know about this list; left out if there is nothing.")
