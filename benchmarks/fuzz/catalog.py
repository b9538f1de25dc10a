"""The catalog that is fuzzed: small, with every kind of attribute, and with the names that the OpenAPI document's examples have.

Invariant: a request that is an example of the document finds its items, so the fuzzer begins with lists and not with refusals. The process
that makes requests imports this, and no model library, which would take longer than its requests.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from drafting.catalog.builder import CatalogBuilder
from drafting.catalog.catalog import Catalog
from drafting.catalog.codebooks import Quantisation, residual_kmeans

ITEMS = 200
LEVELS, CODES = 3, 16


def make_quantisation() -> Quantisation:
    """Codes of random embeddings of three dimensions, and their codebooks."""
    return residual_kmeans(np.random.default_rng(0).normal(size=(ITEMS, LEVELS)), levels=LEVELS, codes_per_level=CODES)


def make_catalog(identifiers: Sequence[Sequence[str]]) -> Catalog:
    """Items "1", "2", … with these identifiers."""
    names = [str(number) for number in range(1, len(identifiers) + 1)]
    attributes: dict[str, list[Any]] = {
        "title": [f"Title {name}" for name in names],
        "country": [("DE", "FR", None)[number % 3] for number in range(len(names))],
        "price": [number / 4 for number in range(len(names))],
        "stock": [number % 5 for number in range(len(names))],
        "tags": [["sale", "new"][: number % 3] for number in range(len(names))],
        "added_at": [1_795_400_000 - 86_400 * number for number in range(len(names))],
    }
    builder = CatalogBuilder()
    builder.add(names, identifiers, attributes)
    return builder.catalog()
