"""A data directory made of small files, and what is in it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.parquet import load_parquet
from drafting.catalog.builder import catalog_of
from drafting.preparation.run import prepare
from drafting.preparation.settings import PrepareSettings
from drafting.preparation.summary import Summary


@dataclass
class Made:
    """What was written and told."""

    folder: Path
    summary: Summary
    told: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / "interactions.parquet").to_pylist()

    @property
    def triples(self) -> list[tuple[str, str, float]]:
        return [(row["user"], row["item"], row["timestamp"]) for row in self.rows]

    @property
    def items(self) -> list[dict[str, Any]]:
        return lines(self.folder / "items.jsonl")

    @property
    def profiles(self) -> list[dict[str, Any]]:
        return lines(self.folder / "profiles.jsonl")

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "prepare.json").read_text())

    def loaded(self) -> Interactions:
        """As training reads it."""
        catalog = catalog_of([(item["item_id"], [f"<a_{number}>"]) for number, item in enumerate(self.items)])
        return load_parquet(self.folder / "interactions.parquet", catalog)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def made(folder: Path, source: Path, **options: Any) -> Made:
    told: list[str] = []
    out = folder / "out"
    summary = prepare(PrepareSettings(source, out, overwrite=True, **options), told.append)
    return Made(out, summary, "\n".join(told))


def written(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
