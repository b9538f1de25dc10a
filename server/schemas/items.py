"""What goes over HTTP about the items of the catalog: those that are there, and new ones.

Invariant: a body that passes these models needs only the catalog and its codebooks to be judged further.
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from drafting.catalog.attributes import TITLE
from drafting.catalog.catalog import MAX_LENGTH
from drafting.catalog.freshness import ADDED_AT
from drafting.catalog.placement import Collision
from server.schemas.recommendations import MAX_FIELDS, Body, FieldName, ItemId

MAX_NEW_ITEMS = 1000
MAX_DIMS = 16_384

Number = Annotated[float, Field(allow_inf_nan=False)]
Token = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class CatalogAnswer(BaseModel):
    """The catalog that the server recommends from."""

    version: str
    items: int
    identifiers: int = Field(description="Distinct identifiers; fewer than items if some are shared.")
    identifier_length: int
    tokens: int = Field(description="Distinct tokens that identifiers are made of.")


class CatalogItem(BaseModel):
    """One item that can be recommended."""

    item_id: str
    identifier: list[str]
    title: str | None = Field(default=None, description="Left out for items without one.")


class CatalogItemsAnswer(BaseModel):
    """Some items of the catalog, in its order."""

    version: str
    offset: int
    items: list[CatalogItem]


class NewItemBody(Body):
    """An item that the catalog does not have yet."""

    item_id: ItemId
    embedding: list[Number] | None = Field(
        default=None, min_length=1, max_length=MAX_DIMS, description="As the codebooks were made from; give this or `identifier`."
    )
    identifier: list[Token] | None = Field(
        default=None, min_length=1, max_length=MAX_LENGTH, description="Tokens that the model knows; give this or `embedding`."
    )
    title: str | None = Field(default=None, max_length=10_000)
    attributes: dict[FieldName, Any] = Field(
        default={},
        max_length=MAX_FIELDS,
        description=f"What else is known of it, by name. `{ADDED_AT}` (seconds since 1970, or an ISO date) is now by default.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.embedding is None) == (self.identifier is None):
            raise PydanticCustomError("sentence", "Give each item either an embedding or an identifier.")
        if TITLE in self.attributes:
            raise PydanticCustomError("sentence", "A title does not belong among the attributes: put it beside item_id.")
        return self


class NewItemsBody(Body):
    """Items to add to the catalog that is served."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"items": [{"item_id": "1683", "embedding": [0.12, -0.4, 0.03], "title": "Premiere", "attributes": {"country": "DE"}}]},
                {"items": [{"item_id": "1684", "identifier": ["<a_3>", "<b_7>", "<c_1>"]}], "on_collision": "shared", "by": "import"},
            ]
        }
    )

    items: list[NewItemBody] = Field(min_length=1, max_length=MAX_NEW_ITEMS)
    # A strict model takes no name for a member, which is all that JSON can bring.
    on_collision: Annotated[Collision, Field(strict=False)] = Field(
        default=Collision.NEAREST_FREE,
        description=(
            "What becomes of an item whose identifier belongs to another: `nearest-free` gives it the nearest code of the last level that "
            "is free behind the same prefix, or else behind the next nearest one; `shared` lets both have it."
        ),
    )
    by: str = Field(default="new items", min_length=1, max_length=200, description="A person or a job, for the history.")


class AddedItem(BaseModel):
    """One item that was added."""

    item_id: str
    identifier: list[str]
    moved: bool = Field(description="Whether the nearest identifier belonged to another item.")


class ItemsAdded(BaseModel):
    """The version that has the items, which is served from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": "2026-11-24.items-1",
                    "items": [{"item_id": "1683", "identifier": ["<a_3>", "<b_7>", "<c_12>"], "moved": False}],
                    "by": "new items",
                    "at": 1795400000.0,
                }
            ]
        }
    )

    version: str
    items: list[AddedItem] = Field(description="In the order of the request.")
    by: str
    at: float = Field(description="Seconds since 1970.")
