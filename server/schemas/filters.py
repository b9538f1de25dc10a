"""What goes over HTTP about named filters.

Invariant: a body that passes these models says one thing: either which items a name stands for, or for which items an expression holds.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from server.schemas.recommendations import MAX_EXCLUDED, MAX_EXPRESSION, Body, ItemId


class FilterDefinition(Body):
    """What a filter lets through."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"expression": 'country = "DE" and (price < 20 or tags has "sale")'}, {"items": ["50", "172"]}]}
    )

    items: list[ItemId] | None = Field(default=None, max_length=MAX_EXCLUDED, description="Item ids; give these or an expression.")
    expression: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_EXPRESSION,
        description="Over the items' attributes: `=` `!=` `<` `<=` `>` `>=`, `in [...]`, `has`, an attribute alone, `and`, `or`, `not`.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.items is None) == (self.expression is None):
            raise PydanticCustomError("sentence", "Give either items or an expression.")
        return self


class FilterAnswer(BaseModel):
    """A named filter."""

    name: str
    items: int = Field(description="How many items of the catalog it lets through.")
    expression: str | None = Field(default=None, description="Left out for a filter that was given as items.")


class FiltersAnswer(BaseModel):
    """All named filters, by name."""

    filters: list[FilterAnswer]
