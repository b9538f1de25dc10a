"""Recommendation lists as they are written: in answers, in files, for both the server and the command line."""

from collections.abc import Sequence
from typing import Any

from drafting.catalog.catalog import Catalog
from server.messages import Cost
from verification.request import Usage


def item_lines(
    catalog: Catalog, items: Sequence[tuple[int, float, int]], fields: Sequence[str] = (), fresh: Sequence[bool] = ()
) -> list[dict[str, Any]]:
    """The lines of a list, as `schemas.RecommendedItem` describes them, from (catalog index, score, rank) triples.

    Args:
        fields: attributes of the catalog that each line shall tell, where the item has them.
        fresh: which lines are to be labelled as fresh; empty for none.
    """
    lines = [catalog_line(catalog, index) | {"score": score, "rank": rank} for index, score, rank in items]
    if fields:
        columns = {name: catalog.attributes[name] for name in fields}
        for line, (index, _, _) in zip(lines, items, strict=True):
            values = {name: column.value(index) for name, column in columns.items()}
            line["attributes"] = {name: value for name, value in values.items() if value is not None}
    for line, is_fresh in zip(lines, fresh, strict=False):
        if is_fresh:
            line["fresh"] = True
    return lines


def catalog_line(catalog: Catalog, index: int) -> dict[str, Any]:
    """One item, as `item_schemas.CatalogItem` describes it."""
    line: dict[str, Any] = {"item_id": catalog.item_ids[index], "identifier": catalog.identifier(index)}
    title = catalog.title(index)
    return line if title is None else line | {"title": title}


def usage_lines(cost: Cost | Usage) -> dict[str, Any]:
    """What a list cost, as `schemas.UsageAnswer` describes it."""
    return {
        "prompt_tokens": cost.prompt_tokens,
        "cached_tokens": cost.cached_tokens,
        "target_forwards": cost.target_forwards,
        "draft_forwards": cost.draft_forwards,
        "accepted_steps": cost.accepted_steps,
        "drafted_nodes": cost.drafted_nodes,
        "plan": cost.plan,
    }
