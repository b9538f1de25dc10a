"""The parts of a recommendation request that choose what its list is: filters, places for fresh items, caps, a blend, a text before
it.

Invariant: as that of `server.schemas.recommendations`, whose bodies they are parts of.
"""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic.config import JsonDict

from drafting.beam.rule import LONGEST_LIST, Tolerance
from drafting.neighbours.candidates import CANDIDATES, MOST_CANDIDATES
from drafting.prompts import thinking
from server.schemas.body import Body, Name, Several
from server.settings import MOST_WEIGHT

MAX_FILTER_NAMES = 100
MAX_AGE_DAYS = 36_500
MAX_CAPS = 8


def with_name(schema: JsonDict) -> None:
    """Add to the schema of a field with a `FilterBody` that the name of a filter may stand in its place."""
    name: JsonDict = {"type": "string", "minLength": 1, "maxLength": 128, "description": "The name of a filter that items must pass."}
    forms = schema["anyOf"]
    assert isinstance(forms, list)
    schema["anyOf"] = [name, *forms]


def with_one(schema: JsonDict) -> None:
    """Add to the schema of a field with a list that an element may stand in its place."""
    forms = schema["anyOf"]
    assert isinstance(forms, list)
    several = forms[0]
    assert isinstance(several, dict)
    schema["anyOf"] = [several["items"], *forms]


class FilterBody(Body):
    """Filters by name, combined."""

    all: Several[Name] = Field(default_factory=list, max_length=MAX_FILTER_NAMES, description="Items must pass every one of these.")
    any: Several[Name] = Field(
        default_factory=list, max_length=MAX_FILTER_NAMES, description="Items must pass one of these, if there are any."
    )
    without: Several[Name] = Field(
        default_factory=list, alias="not", max_length=MAX_FILTER_NAMES, description="Items must pass none of these."
    )

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, body: Any) -> Any:
        return {"all": [body]} if isinstance(body, str) else body

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.all and not self.any and not self.without:
            raise ValueError("The filter names no filter: give all, any or not.")
        return self


class ToleranceBody(Body):
    """How far a strict list may be from the exact one."""

    items: int | None = Field(default=None, ge=0, le=LONGEST_LIST, description="So many of the k identifiers may be others, at most.")
    mass: float | None = Field(
        default=None, ge=0, le=0.99, description="The identifiers that are missing have at most this share of the exact list's probability."
    )

    @property
    def tolerance(self) -> Tolerance:
        """The same for the engine; a list within either bound will do."""
        return Tolerance(self.items or 0, self.mass or 0.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.items is None and self.mass is None:
            raise ValueError("The tolerance names neither items nor mass.")
        if self.items is not None and self.mass is not None:
            raise ValueError("The tolerance names items and mass: give one of them.")
        return self


class FreshBody(Body):
    """Places that are reserved for fresh items."""

    max_age_days: int = Field(
        ge=1, le=MAX_AGE_DAYS, description="Items whose `added_at` is at most so many days of UTC before today are fresh; others are old."
    )
    min: int = Field(ge=1, le=LONGEST_LIST, description="So many of the k places are for fresh items, at least; no more than `k`.")


class DiversityBody(Body):
    """A cap on the items of a list that are alike."""

    attribute: Name = Field(description="An attribute of the catalog, such as the brand. Of a list each element counts as a value.")
    at_most: int = Field(
        ge=1,
        le=LONGEST_LIST,
        description="The most items of the list with any one value of the attribute; items without the attribute are not counted.",
    )


def _listed(body: Any) -> Any:
    """Caps as a list; a mistake of one that stands alone is told of `diversity` itself."""
    if isinstance(body, dict | DiversityBody):
        return [DiversityBody.model_validate(body)]
    if isinstance(body, list):
        return body
    raise ValueError('diversity must be a cap, such as {"attribute": "brand", "at_most": 2}, or a list of caps.')


Diversity = Annotated[Several[DiversityBody], BeforeValidator(_listed)]


class BlendBody(Body):
    """Candidates of the server's neighbour model beside those of the model."""

    weight: float | None = Field(
        default=None,
        ge=0,
        le=MOST_WEIGHT,
        allow_inf_nan=False,
        description="The list is ranked by log-probability plus so many times the logarithm of the neighbour score; the server's `--blend` "
        "by default. 0 for the model's own list.",
    )
    candidates: int = Field(
        default=CANDIDATES, ge=1, le=MOST_CANDIDATES, description="The most items that the neighbour model proposes; the model scores all."
    )


class ThinkBody(Body):
    """Text that the model writes before its list begins."""

    max_tokens: int = Field(
        ge=1, le=thinking.MOST_TOKENS, description="The most tokens of text; the model's `prompt.json` says how many are possible."
    )
    return_text: bool = Field(default=False, description="Whether the answer tells the text, as `thought`.")
