"""The parts of an answer that `POST /v1/recommendations` and `atspeed recommend` share, as `schemas.recommendations` describes them."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from drafting.array_types import IntArray
from drafting.beam.rule import SearchRule, Tolerance, Verification
from drafting.catalog.catalog import Catalog
from server.errors import encodable
from server.messages import FinishedList
from verification.result import BlendedList, Precision, RankedItem, Usage


def item_lines(
    catalog: Catalog,
    items: Sequence[RankedItem],
    fields: Sequence[str] = (),
    fresh: Sequence[bool] = (),
    blend: BlendedList | None = None,
    brief: bool = False,
) -> list[dict[str, Any]]:
    """The lines of a list, as `RecommendedItem` describes them; all columns are read at once, because lists may be long.

    Args:
        fields: attributes of the catalog that each line shall tell, where the item has them.
        fresh: lines to label as fresh; empty for none.
        blend: scores and sources of a blended list; None for another list.
        brief: True for nothing of the catalog but the items' ids.
    """
    indices = np.array([item.item for item in items], np.int64)
    lines = _brief_lines(catalog, items, indices) if brief else _whole_lines(catalog, items, indices)
    if fields:
        _add_attributes(lines, catalog, indices, fields)
    for line, is_fresh in zip(lines, fresh, strict=False):
        if is_fresh:
            line["fresh"] = True
    if blend is not None:
        for line, item in zip(lines, items, strict=True):
            line |= {"blend_score": blend.scores[item.rank - 1], "source": blend.sources[item.rank - 1]}
    return lines


def _brief_lines(catalog: Catalog, items: Sequence[RankedItem], indices: IntArray) -> list[dict[str, Any]]:
    """Lines with the ids of items, and no more of the catalog; `indices` are those of the items."""
    return [{"item_id": name, "score": item.score, "rank": item.rank} for name, item in zip(_names(catalog, indices), items, strict=True)]


def _whole_lines(catalog: Catalog, items: Sequence[RankedItem], indices: IntArray) -> list[dict[str, Any]]:
    """Lines with the ids of items, their identifiers and titles."""
    lines: list[dict[str, Any]] = [
        {"item_id": name, "identifier": identifier, "score": item.score, "rank": item.rank}
        for name, identifier, item in zip(_names(catalog, indices), catalog.identifiers_of(indices), items, strict=True)
    ]
    for line, title in zip(lines, catalog.titles_of(indices), strict=True):
        if title is not None:
            line["title"] = title
    return lines


def _add_attributes(lines: Sequence[dict[str, Any]], catalog: Catalog, indices: IntArray, fields: Sequence[str]) -> None:
    """Tell each item's attributes of these names, as far as it has them."""
    for line in lines:
        line["attributes"] = {}
    for field in fields:
        for line, value in zip(lines, catalog.attributes[field].values_of(indices), strict=True):
            if value is not None:
                line["attributes"][field] = value


def _names(catalog: Catalog, indices: IntArray) -> Sequence[str]:
    names = catalog.item_ids.texts_of(indices)
    return names if all(map(str.isascii, names)) else [encodable(name) for name in names]


def catalog_line(catalog: Catalog, index: int) -> dict[str, Any]:
    """One item, as `CatalogItem` describes it."""
    item_id = catalog.item_ids[index]
    line: dict[str, Any] = {"item_id": item_id if item_id.isascii() else encodable(item_id), "identifier": catalog.identifier(index)}
    title = catalog.title(index)
    return line if title is None else line | {"title": title}


def name_line(catalog: Catalog, index: int) -> dict[str, Any]:
    """One item by its name, as `ItemName` describes it."""
    line = catalog_line(catalog, index)
    del line["identifier"]
    return line


def precision_lines(precision: Precision, rule: SearchRule, tolerance: Tolerance | None = None) -> dict[str, Any]:
    """The precision of a list, as in `RecommendationAnswer`; one found with a tolerance that allows a difference is not exact, even if it
    happens to be the same.
    """
    is_exact = precision.is_exact and rule.verification is not Verification.RELAXED and tolerance in (None, Tolerance())
    return {"precision": precision.dtype, "exact": is_exact}


def rule_lines(rule: SearchRule) -> dict[str, Any]:
    """The search of a list, as in `RecommendationAnswer`."""
    if rule.verification is Verification.STRICT:
        return {"verification": "strict"}
    return {"verification": rule.verification.value, "seed": rule.seed}


def timing_lines(finished: FinishedList, started: float, built: float) -> dict[str, float]:
    """The parts of the time that an answer has taken which is written now, as in `TimingAnswer`.

    Args:
        started, built: monotonic seconds at which the request came, and at which its prompt was built.
    """
    return {
        "history": _milliseconds(built - started),
        "queue": _milliseconds(finished.queue_seconds),
        "engine": _milliseconds(finished.engine_seconds),
        "total": _milliseconds(time.monotonic() - started),
    }


def usage_lines(usage: Usage) -> dict[str, Any]:
    """The usage of a list, as in `UsageAnswer`."""
    lines: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "target_forwards": usage.target_forwards,
        "draft_forwards": usage.draft_forwards,
        "accepted_steps": usage.accepted_steps,
        "drafted_nodes": usage.drafted_nodes,
        "plan": usage.plan,
    }
    lines |= {"used_by": usage.used_by} if usage.used_by else {}
    lines |= {"rounds": usage.rounds} if usage.rounds > 1 else {}
    lines |= {"thought_tokens": usage.thought_tokens} if usage.thought_tokens else {}
    return lines | {"candidates": usage.candidates} if usage.candidates else lines


def note_lines(notes: Iterable[str]) -> dict[str, str]:
    """The notes of an answer as one; nothing without any."""
    note = " ".join(notes)
    return {"note": note} if note else {}


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
