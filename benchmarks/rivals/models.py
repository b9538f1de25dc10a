"""The models that rivals are asked with: random ones of a shape, made once and kept in the cache, or a pair of the user's."""

import hashlib
from pathlib import Path

import typer

from benchmarks.rivals.run import Models
from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint


def random_models(shape: str, cache: Path) -> Models:
    """Target, draft and catalog of a shape, in float32: what each rival converts them to is its own affair."""
    if shape not in SHAPES:
        raise typer.BadParameter(f"there is no shape {shape!r}: choose {', '.join(SHAPES)}.")
    folder = cache / "models" / shape
    models = Models(shape, folder / "target", folder / "draft", folder / "catalog.jsonl", folder / "made")
    if not models.catalog.is_file():
        made = make_catalog(SHAPES[shape])
        make_checkpoint(models.target, SHAPES[shape].target, made)
        make_checkpoint(models.draft, SHAPES[shape].draft, made, seed=1)
        # The last, so that a folder with a catalog is complete.
        made.save(models.catalog)
    return models


def given_models(target: Path, draft: Path, catalog: Path, cache: Path) -> Models:
    """A user's models; what rivals make of them lies in the cache, by the target's path and the time of its weights."""
    target = target.resolve()
    newest = max(path.stat().st_mtime_ns for path in target.iterdir())
    digest = hashlib.sha256(f"{target}\0{newest}".encode()).hexdigest()[:12]
    return Models(target.name, target, draft.resolve(), catalog.resolve(), cache / "models" / f"{target.name}-{digest}" / "made")
