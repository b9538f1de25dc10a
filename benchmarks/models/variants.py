"""Variants of families by name, and how those to try are chosen.

Invariant: a variant is here if it takes another path through a model, its attention or a host than its siblings, and if checkpoints like it
are published.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchmarks.models.dense import DENSE
from benchmarks.models.latent import LATENTS
from benchmarks.models.mixtures import MIXTURES
from benchmarks.models.older import OLDER
from benchmarks.models.shapes import GROUPED, MULTI_HEAD, TOKENS, Settings, Table
from benchmarks.models.unlike import UNLIKE

# Each table with what all of its variants have.
TABLES: tuple[tuple[Settings, Table], ...] = (
    (GROUPED, DENSE),
    (GROUPED, MIXTURES),
    (MULTI_HEAD, LATENTS),
    (MULTI_HEAD, OLDER),
    (TOKENS, UNLIKE),
)


@dataclass(frozen=True)
class Variant:
    """A tiny model of a family.

    Attributes:
        family: transformers' name of the architecture, `model_type` in a config.json.
        name: the variant within its family.
        settings: fields of the configuration.
    """

    family: str
    name: str
    settings: Settings

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change with the settings."""
        return hashlib.sha256(json.dumps([self.family, self.settings], sort_keys=True).encode()).hexdigest()[:8]

    def __str__(self) -> str:
        return f"{self.family}/{self.name}"


def all_variants() -> Iterator[Variant]:
    """All variants, by family and as the tables have them."""
    for shape, table in TABLES:
        for family, variants in table.items():
            for name, settings in variants.items():
                yield Variant(family, name, {**shape, **settings})


def choose(patterns: Sequence[str]) -> list[Variant]:
    """Variants whose family, or family/variant, is like one of the patterns, sorted; all of them without a pattern."""
    chosen = [v for v in all_variants() if not patterns or any(fnmatchcase(v.family, p) or fnmatchcase(str(v), p) for p in patterns)]
    return sorted(chosen, key=lambda variant: variant.family)
