"""HTTP schemas of the catalog: items, named filters and versions.

Invariant: a body that passes these models needs only the catalog and its codebooks to be judged further; a filter is given in one way.
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from drafting.catalog.attributes import TITLE
from drafting.catalog.catalog import MAX_LENGTH
from drafting.catalog.filter_expression import MAX_CHARACTERS
from drafting.catalog.freshness import ADDED_AT
from drafting.catalog.json_values import check_attributes
from drafting.catalog.placement import Collision
from server.schemas.body import Body, Id, Name, Several, examples
from server.schemas.recommendations import MAX_EXCLUDED, MAX_FIELDS

MAX_NEW_ITEMS = 1000
MAX_DIMS = 16_384
# The form of an uploaded catalog, as the suffix of such a file, by its content type.
UPLOAD_FORMS = {
    "application/x-ndjson": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "application/vnd.atspeed.index+json": ".json",
    "text/tab-separated-values": ".tsv",
    "application/octet-stream": ".catalog",
}

Number = Annotated[float, Field(allow_inf_nan=False)]


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


class CatalogItemAnswer(CatalogItem):
    """All that the catalog knows of one item."""

    model_config = examples(
        {
            "version": "1a2b3c4d5e6f",
            "item_id": "172",
            "identifier": ["<a_3>", "<b_7>", "<c_1>"],
            "title": "Empire Strikes Back, The (1980)",
            "attributes": {"year": 1980, "genres": ["Action", "Sci-Fi"]},
        }
    )

    version: str
    attributes: dict[str, Any] = Field(description="All that the item has but its title.")


class CatalogItemsAnswer(BaseModel):
    """Some items of the catalog, in its order; of a search, the best matches first."""

    version: str
    offset: int
    items: list[CatalogItem]
    found: int | None = Field(default=None, description="How many items match the search; left out where there was none.")


def _few_attributes(attributes: Any) -> Any:
    """Count names before each is looked at."""
    if isinstance(attributes, dict) and len(attributes) > MAX_FIELDS:
        raise ValueError(f"An item may bring {MAX_FIELDS} attributes, got {len(attributes):,}.")
    return attributes


class NewItemBody(Body):
    """An item that the catalog does not have yet."""

    item_id: Id
    embedding: Several[Number] | None = Field(
        default=None, min_length=1, max_length=MAX_DIMS, description="As the codebooks were made from; give this or `identifier`."
    )
    identifier: Several[Name] | None = Field(
        default=None, min_length=1, max_length=MAX_LENGTH, description="Tokens that the model knows; give this or `embedding`."
    )
    title: str | None = Field(default=None, max_length=10_000)
    attributes: Annotated[dict[Name, Any], BeforeValidator(_few_attributes)] = Field(
        default={},
        max_length=MAX_FIELDS,
        description=f"What else is known of it, by name. `{ADDED_AT}` (seconds since 1970, or an ISO date) is now by default.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.embedding is None) == (self.identifier is None):
            raise ValueError("Give each item either an embedding or an identifier.")
        if TITLE in self.attributes:
            raise ValueError("A title does not belong among the attributes: put it beside item_id.")
        check_attributes(self.item_id, self.attributes)
        return self


class NewItemsBody(Body):
    """Items to add to the catalog that is served."""

    model_config = examples(
        {"items": [{"item_id": "1683", "embedding": [0.12, -0.4, 0.03], "title": "Premiere", "attributes": {"country": "DE"}}]},
        {"items": [{"item_id": "1684", "identifier": ["<a_3>", "<b_7>", "<c_1>"]}], "on_collision": "shared", "by": "import"},
    )

    items: Several[NewItemBody] = Field(min_length=1, max_length=MAX_NEW_ITEMS)
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

    model_config = examples(
        {
            "version": "2026-11-24.items-1",
            "items": [{"item_id": "1683", "identifier": ["<a_3>", "<b_7>", "<c_12>"], "moved": False}],
            "by": "new items",
            "at": 1795400000.0,
        }
    )

    version: str
    items: list[AddedItem] = Field(description="In the order of the request.")
    by: str
    at: float = Field(description="Seconds since 1970.")


class FilterDefinition(Body):
    """The items that a filter allows."""

    model_config = examples({"expression": 'country = "DE" and (price < 20 or tags has "sale")'}, {"items": ["50", "172"]})

    items: Several[Id] | None = Field(default=None, max_length=MAX_EXCLUDED, description="Item ids; give these or an expression.")
    expression: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CHARACTERS,
        description="Over the items' attributes: `=` `!=` `<` `<=` `>` `>=`, `in [...]`, `has`, an attribute alone, `and`, `or`, `not`.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.items is None) == (self.expression is None):
            raise ValueError("Give either items or an expression.")
        return self


class FilterAnswer(BaseModel):
    """A named filter."""

    name: str
    items: int = Field(description="How many items of the catalog it lets through.")
    expression: str | None = Field(default=None, description="Left out for a filter that was given as items.")
    note: str | None = Field(default=None, description="What to know about it; left out if there is nothing.")


class FiltersAnswer(BaseModel):
    """All named filters, by name."""

    filters: list[FilterAnswer]


class CatalogPath(Body):
    """A catalog that is a file already."""

    model_config = examples({"path": "2026-11-24.parquet"})

    path: str = Field(min_length=1, max_length=4096, description="Below the server's directory of catalogs.")


class ActivationBody(Body):
    """Who changes what is served."""

    model_config = examples({"by": "nightly import"})

    by: str = Field(min_length=1, max_length=200, description="A person or a job, for the history.")


class RollbackBody(Body):
    """Who goes back, and from what."""

    model_config = examples({"by": "on call", "from": "2026-11-24"})

    by: str = Field(default="rollback", min_length=1, max_length=200, description="A person or a job, for the history.")
    served: str | None = Field(
        default=None,
        alias="from",
        min_length=1,
        max_length=200,
        description="The version that is to be left; where another one is served, as two people go back at once, nothing changes (409).",
    )


class VersionBuilt(BaseModel):
    """A version that can be activated."""

    version: str
    content: str = Field(description="A hash of what is in it.")
    items: int
    identifiers: int
    identifier_length: int


class ActivationAnswer(BaseModel):
    """One entry of the history."""

    version: str
    by: str
    at: float = Field(description="Seconds since 1970.")


class LeftAnswer(BaseModel):
    """A version that the server has left by itself for an earlier one."""

    version: str
    at: float = Field(description="Seconds since 1970.")
    reason: str


class CatalogsAnswer(BaseModel):
    """All versions, and how they came to be served."""

    active: str
    versions: list[str]
    history: list[ActivationAnswer] = Field(description="Oldest first.")
    left: list[LeftAnswer] = Field(
        description="What the server has left by itself, as engines died with it or could not load it; until it is activated or removed."
    )
