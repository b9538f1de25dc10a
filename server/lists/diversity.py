"""Caps of one request: how many items of its list may have the same value of an attribute."""

from collections.abc import Sequence

from drafting.catalog.catalog import Catalog
from drafting.catalog.json_values import listed
from drafting.errors import quoted
from server.errors import InvalidRequest, UnknownField
from server.schemas.choices import DiversityBody


def caps_of(diversity: Sequence[DiversityBody] | None, catalog: Catalog) -> dict[str, int]:
    """The caps as the engine is asked for them.

    Raises:
        UnknownField: the catalog has no such attribute.
        InvalidRequest: it has, but no item has a value.
    """
    for cap in diversity or ():
        if cap.attribute not in catalog.attributes:
            known = listed(catalog.attributes)
            raise UnknownField(f"The catalog has no attribute {quoted(cap.attribute)}, which diversity names; it has {known}.")
        if not len(catalog.attributes[cap.attribute].values):
            raise InvalidRequest(f"No item of the catalog has the attribute {quoted(cap.attribute)}, which diversity names.")
    return {cap.attribute: cap.at_most for cap in diversity or ()}
