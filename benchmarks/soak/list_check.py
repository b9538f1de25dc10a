"""The check of a list: that it is one which the server may give.

Invariant: a list is judged only by its request and the version that it names: its items are of that version, pass the filter and are not
excluded, ranks are those from 1 to `k` (thousands of items are eligible), and the scores of a strict list are numbers that do not rise.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from benchmarks.soak.catalog_lines import group_of


def list_complaint(request: Mapping[str, Any], answer: Mapping[str, Any], items: Collection[str] | None, group: int | None) -> str | None:
    """What is wrong with a list, as a sentence; None if nothing is.

    Args:
        items: names of the items of the version that the answer names; None if they are not known.
        group: the group that the request's filter asks for; None without a filter.
    """
    listed = [line["item_id"] for line in answer["items"]]
    ranks = [line["rank"] for line in answer["items"]]
    scores = [line["score"] for line in answer["items"]]
    k = request["k"]
    where = f"A list of version {answer['catalog_version']}"
    if items is not None and (strange := [item for item in listed if item not in items]):
        return f"{where} has {strange[0]}, which that version does not have."
    if len(set(listed)) < len(listed):
        return f"{where} has an item twice."
    if group is not None and (wrong := [item for item in listed if group_of(item) != group]):
        return f"{where} has {wrong[0]}, which the filter for group {group} does not let through."
    if excluded := set(listed) & set(request.get("exclude", ())):
        return f"{where} has {min(excluded)}, which the request excludes."
    if sorted(set(ranks)) != list(range(1, k + 1)) or ranks != sorted(ranks):
        return f"{where} has the ranks {ranks} for k = {k}."
    if not all(isinstance(score, float | int) and math.isfinite(score) for score in scores):
        return f"{where} has scores that are no numbers."
    if answer["verification"] == "strict" and scores != sorted(scores, reverse=True):
        return f"{where} is not in the order of its scores."
    return None
