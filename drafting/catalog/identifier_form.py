"""The form of identifiers that are made from embeddings: how many codes they have, and how items that would share one are told apart."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy.typing as npt

from drafting.catalog.codebooks import Quantisation, residual_kmeans

UNIQUE, DIGIT, ITEM_TOKEN = "unique", "digit", "item-token"


@dataclass(frozen=True)
class IdentifierForm:
    """A form, as flags of `atspeed catalog build` say it.

    Attributes:
        levels: codes of an identifier, and `codes` that each level has.
        balanced: as of `residual_kmeans`.
        ending: UNIQUE, DIGIT or ITEM_TOKEN; None where items may share an identifier.
    """

    levels: int
    codes: int
    balanced: bool = False
    ending: str | None = None

    def __str__(self) -> str:
        flags = [f"--levels {self.levels}", f"--codes {self.codes}", "--balanced" * self.balanced, f"--{self.ending}" * bool(self.ending)]
        return " ".join(filter(None, flags))

    @property
    def has_codebooks(self) -> bool:
        """True if codebooks say all of an identifier, so that they can place new items."""
        return self.ending not in (DIGIT, ITEM_TOKEN)

    def quantise(self, embeddings: npt.ArrayLike, seed: int, on_level: Callable[[int], object]) -> Quantisation:
        """Identifiers of this form for embeddings `[items, dims]`; `on_level` is called with the number of each level when it is done.

        Raises:
            CodebookError: as `residual_kmeans`.
        """
        made = residual_kmeans(
            embeddings,
            levels=self.levels,
            codes_per_level=self.codes,
            seed=seed,
            resolve_collisions=self.ending == UNIQUE,
            balanced=self.balanced,
            on_level=on_level,
        )
        if self.ending == ITEM_TOKEN:
            return made.with_item_tokens()
        return made.numbered() if self.ending == DIGIT else made


def forms_to_try(codes: int) -> tuple[IdentifierForm, ...]:
    """Forms that have been the best of some data set, and that any items can have: unique codes may be too few."""
    return (
        IdentifierForm(1, codes, balanced=True, ending=ITEM_TOKEN),
        IdentifierForm(1, codes, ending=ITEM_TOKEN),
        IdentifierForm(2, codes, ending=DIGIT),
        IdentifierForm(3, codes),
    )
