"""The models that rivals are asked with: random ones of a shape, made once and kept in the cache, or a pair of the user's."""

import hashlib
from pathlib import Path

import typer

from benchmarks.rivals.run import Models
from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint
from drafting.cache import whole_file


def random_models(shape: str, cache: Path) -> Models:
    """Target, draft and catalog of a shape, in float32: what each rival converts them to is its own affair."""
    if shape not in SHAPES:
        raise typer.BadParameter(f"there is no shape {shape!r}: choose {', '.join(SHAPES)}.")
    folder = cache / "models" / shape
    target, draft, catalog = folder / "target", folder / "draft", folder / "catalog.jsonl"
    if not catalog.is_file():
        made = make_catalog(SHAPES[shape])
        make_checkpoint(target, SHAPES[shape].target, made)
        make_checkpoint(draft, SHAPES[shape].draft, made, seed=1)
        # The last, so that a folder with a catalog is complete.
        with whole_file(catalog) as building:
            made.save(building)
    return Models(shape, target, draft, catalog, folder / "made", _digest(target, draft, catalog))


def given_models(target: Path, draft: Path, catalog: Path, cache: Path) -> Models:
    """A user's models; what rivals make of them lies in the cache, by the target's path and the time of its weights."""
    target, draft, catalog = target.resolve(), draft.resolve(), catalog.resolve()
    newest = max(path.stat().st_mtime_ns for path in target.iterdir())
    work = cache / "models" / "-".join([target.name, _digest_of(f"{target}\0{newest}")]) / "made"
    return Models(target.name, target, draft, catalog, work, _digest(target, draft, catalog))


def _digest(*paths: Path) -> str:
    """Another one for other files, and where one of them was written anew."""
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return _digest_of("\0".join(f"{file} {file.stat().st_mtime_ns}" for file in files))


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
