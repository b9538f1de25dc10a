"""The search rule of a request, and the widths of beams: verification of drafts, and for sampled lists the seed and the temperature; and
what an engine's log-probabilities are normalised over.

Three rules, one per way of verifying a draft. *Strict* ranks by the cumulative log-probability, as plain beam search does. The two rules
that sample draw from the model restricted to the catalog: token probabilities at a temperature, renormalised over the valid continuations.
*Gumbel* ranks by noise-perturbed log-probabilities, and *relaxed* draws each level anew.

Invariant: nothing here needs torch, because a process that only takes requests in must know these names too.
"""

import secrets
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

MOST_SEEDS = 2**63
# The widest beam and the longest list that may be asked for, however much memory there is.
WIDEST_BEAM = 5000
LONGEST_LIST = 2000
# The widest beam for which memory is set aside by default.
MAX_BEAM_WIDTH = 256
# The beam width of requests that name none and ask for fewer items: in measurements, lists of far wider beams are hardly better.
SERVED_BEAM_WIDTH = 50
# A JavaScript client reads a larger one as another number than was sent.
LARGEST_JSON_INTEGER = 2**53 - 1


class Verification(StrEnum):
    """The verification of drafts by the target, which also determines the kind of list.

    Attributes:
        STRICT: exactly the list of plain beam search.
        GUMBEL: a sample of k identifiers without replacement, exact for any draft.
        RELAXED: the paper's sampling acceptance (algorithm 2); not distribution-preserving.
    """

    STRICT = "strict"
    GUMBEL = "gumbel"
    RELAXED = "relaxed"


class Normalisation(StrEnum):
    """The tokens over which probabilities sum to one, as in the model's training. Sampled lists do not depend on it.

    Attributes:
        VOCABULARY: all tokens, as the paper has it.
        CHILDREN: all children of the prefix in the catalog, whichever of them a request may have; transformers' `renormalize_logits`.
        LEVEL: all tokens that the catalog uses at the prefix's level, as if the model knew no others.
    """

    VOCABULARY = "vocabulary"
    CHILDREN = "children"
    LEVEL = "level"


# The options' names: auto is what the model's `generation_config.json` says.
NormaliseName = Literal["auto", "vocabulary", "children", "level"]


@dataclass(frozen=True)
class Tolerance:
    """How far a strict list may be from plain beam search's, so that it takes fewer forwards. A list need keep to only one of the bounds.

    Attributes:
        items: the most of the k identifiers that may differ from those of the exact list.
        mass: the largest share of the exact list's probability that the identifiers missing from the list may have.
    """

    items: int = 0
    mass: float = 0.0

    def __post_init__(self) -> None:
        if self.items < 0 or not 0 <= self.mass < 1:
            raise ValueError(
                f"A tolerance is of items from 0 on, or of mass from 0 up to 1, got {self.items} items and {self.mass} of mass."
            )


@dataclass(frozen=True)
class SearchRule:
    """The search rule of one request.

    Attributes:
        seed: seed of the noise; the same seed gives the same list. Strict searches ignore it.
        temperature: sharpens (below 1) or flattens (above 1) the distribution that is sampled. Strict searches ignore it.
    """

    verification: Verification = Verification.STRICT
    seed: int = 0
    temperature: float = 1.0

    @classmethod
    def choose(cls, verification: Verification, seed: int | None, temperature: float | None) -> "SearchRule":
        """The rule of one request; a random seed where none is given, which can be written in JSON and asked for again.

        Raises:
            ValueError: the list is strict, yet there is a seed or a temperature, or one of them is out of range; the message is a sentence.
        """
        if verification is not Verification.STRICT:
            drawn = secrets.randbelow(LARGEST_JSON_INTEGER + 1) if seed is None else seed
            return cls(verification, drawn, 1.0 if temperature is None else temperature)
        for name, value in (("seed", seed), ("temperature", temperature)):
            if value is not None:
                raise ValueError(f"A {name} is for lists that are sampled: leave it out, or choose gumbel or relaxed verification.")
        return STRICT

    def __post_init__(self) -> None:
        if not 0 <= self.seed < MOST_SEEDS:
            raise ValueError(f"A seed is a whole number from 0 to 2^63 - 1, got {self.seed}.")
        if not 0.01 <= self.temperature <= 100:
            raise ValueError(f"A temperature lies between 0.01 and 100, got {self.temperature}.")

    def numbered(self, number: int) -> "SearchRule":
        """The rule of one of many lists: no two share their noise, and the first has the seed that was given."""
        return replace(self, seed=(self.seed + number) % MOST_SEEDS)


STRICT = SearchRule()
