"""HTTP schemas of what lies side by side: items that are alike, versions of the catalog, and the catalog with a filter.

Invariant: each tells how many items there are, and names no more of them than its request allows.
"""

from pydantic import BaseModel, Field

from server.schemas.body import examples
from server.schemas.catalogs import CatalogItem


class ItemName(BaseModel):
    """An item by its name."""

    item_id: str
    title: str | None = Field(default=None, description="Left out for items without one.")


class SomeItems(BaseModel):
    """Items, not all of which may be told."""

    count: int = Field(description="How many there are.")
    items: list[ItemName] = Field(description="The first of them, in the catalog's order.")


class AlikeItems(BaseModel):
    """Items that share the beginning of an identifier."""

    shared: list[str] = Field(description="The tokens that they share, and not one more.")
    count: int = Field(description="How many there are.")
    items: list[CatalogItem] = Field(description="The first of them, in the catalog's order.")


class AlikeAnswer(CatalogItem):
    """An item, and its neighbours in the trie of identifiers."""

    model_config = examples(
        {
            "version": "1a2b3c4d5e6f",
            "item_id": "172",
            "identifier": ["<a_3>", "<b_7>"],
            "title": "Empire Strikes Back, The (1980)",
            "alike": [
                {"shared": ["<a_3>", "<b_7>"], "count": 0, "items": []},
                {
                    "shared": ["<a_3>"],
                    "count": 30,
                    "items": [{"item_id": "50", "identifier": ["<a_3>", "<b_2>"], "title": "Star Wars (1977)"}],
                },
            ],
        }
    )

    version: str
    alike: list[AlikeItems] = Field(description="By the longest beginning that they share: the whole identifier first, one token last.")


class FilterSample(BaseModel):
    """What a named filter leaves of the catalog that is served."""

    model_config = examples(
        {
            "name": "in stock",
            "version": "1a2b3c4d5e6f",
            "items": 1200,
            "identifiers": 1180,
            "catalog_items": 1682,
            "sample": [{"item_id": "172", "title": "Empire Strikes Back, The (1980)"}],
        }
    )

    name: str
    version: str
    items: int = Field(description="How many items it lets through.")
    identifiers: int = Field(description="How many identifiers have an item that it lets through: the largest `k` that it can fill.")
    catalog_items: int = Field(description="How many items the catalog has.")
    sample: list[ItemName] = Field(description="Some of the items, evenly spread over the catalog's order.")


class VersionDifference(BaseModel):
    """What serving a version in place of another changes."""

    model_config = examples(
        {
            "version": "2026-11-24",
            "base": "2026-11-23",
            "items": 1683,
            "base_items": 1682,
            "added": {"count": 1, "items": [{"item_id": "1683", "title": "Premiere"}]},
            "removed": {"count": 0, "items": []},
            "identifier_changed": {"count": 0, "items": []},
            "attributes_changed": {"count": 1, "items": [{"item_id": "172", "title": "Empire Strikes Back, The (1980)"}]},
        }
    )

    version: str
    base: str
    items: int = Field(description="Items of the version.")
    base_items: int = Field(description="Items of the base.")
    added: SomeItems = Field(description="Items that the base does not have.")
    removed: SomeItems = Field(description="Items that only the base has.")
    identifier_changed: SomeItems = Field(description="Items whose identifier is another than in the base.")
    attributes_changed: SomeItems = Field(description="Items whose title or another attribute is not that of the base.")
