"""The catalog of generative retrieval: items, their semantic ids (identifiers) and attributes, file formats, and placing of new items.

Scripts of earlier releases import `Catalog` from here and read files with `Catalog.load`; for one release they go on working.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from drafting.catalog import catalog

__all__ = ["Catalog"]


class Catalog(catalog.Catalog):
    """The catalog of `drafting.catalog.catalog`, with the readers that it had as methods."""

    @staticmethod
    def load(path: Path) -> catalog.Catalog:
        """Read a catalog; see `load_catalog`."""
        # Readers need more packages than a bare GPU machine has.
        from drafting.catalog.loading import load_catalog

        return load_catalog(path)

    @staticmethod
    def from_identifiers(
        identifiers: Mapping[str, Sequence[str]] | Iterable[tuple[str, Sequence[str]]], titles: Mapping[str, str] | None = None
    ) -> catalog.Catalog:
        """Build a catalog; see `catalog_of`."""
        from drafting.catalog.builder import catalog_of

        return catalog_of(identifiers, titles)
