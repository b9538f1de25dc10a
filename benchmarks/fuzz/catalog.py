"""The catalog that is fuzzed: small, with every kind of attribute, and with the names that the OpenAPI document's examples have.

Invariant: a request that is an example of the document finds its items, so the fuzzer begins with lists and not with refusals.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.shapes import SHAPES, make_checkpoint
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


def write_world(folder: Path) -> None:
    """Write `model/`, `catalog.jsonl`, `codebooks.safetensors` and a directory `versions/` that has files to make versions of."""
    from benchmarks.fuzz.uploads import as_parquet

    quantisation = make_quantisation()
    catalog = make_catalog(quantisation.identifiers())
    catalog.save(folder / "catalog.jsonl")
    quantisation.codebooks.save(folder / "codebooks.safetensors")
    make_checkpoint(folder / "model", SHAPES["tiny"].target, catalog)
    versions = folder / "versions"
    versions.mkdir()
    catalog.save(versions / "first.jsonl")
    parquet = as_parquet(catalog)
    (versions / "first.parquet").write_bytes(parquet)
    (versions / "broken.parquet").write_bytes(parquet[:-40])
