"""The files that a server is fuzzed with: a model, the catalog, its codebooks, and files to make versions of."""

from pathlib import Path

from benchmarks.fuzz.catalog import make_catalog, make_quantisation
from benchmarks.fuzz.uploads import as_parquet
from benchmarks.systems.shapes import SHAPES, make_checkpoint


def write_world(folder: Path) -> None:
    """Write `model/`, `catalog.jsonl`, `codebooks.safetensors` and a directory `versions/` that has files to make versions of."""
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
