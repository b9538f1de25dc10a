"""What the API process asks the engine process for one request: a list or scores, with all that is chosen about it.

Invariant: as of all messages (`server.messages`), numbers and strings only. What follows from the stored history is filled in by the API
process once it has read it, before the message leaves.
"""

import msgspec

from drafting.beam.rule import Normalisation, Tolerance, Verification

# Bytes of a token id in `Submit.prompt`.
TOKEN_BYTES = 4


class FilterChoice(msgspec.Struct, frozen=True):
    """Which items a request may be given, by the names of filters.

    Attributes:
        all: filters that an item must pass, every one.
        any: filters of which an item must pass one, unless there are none.
        without: filters that an item must not pass.
    """

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every filter that is named."""
        return self.all + self.any + self.without


class FreshPlaces(msgspec.Struct, frozen=True):
    """Places of a list that are reserved for fresh items.

    Attributes:
        since: the day, in days since 1970, on which or after which an item must have come.
        places: number of reserved positions of the k.
    """

    since: int
    places: int


class BlendChoice(msgspec.Struct):
    """A list that is blended with the candidates of a neighbour model.

    Attributes:
        weight: of the logarithm of their scores.
        count: the most candidates.
        items: of the candidates, as bytes of int32; the API process fills them in once it has read the stored history.
        scores: as bytes of float64; likewise.
    """

    weight: float
    count: int
    items: bytes = b""
    scores: bytes = b""


class ScoreChoice(msgspec.Struct, frozen=True):
    """Items whose scores are asked for, in place of a list.

    Attributes:
        items: catalog indices as bytes of int32.
        prefixes: the prefixes of their identifiers, which the target computes.
    """

    items: bytes
    prefixes: int


class Submit(msgspec.Struct, tag=True):
    """Search for one list, or score items.

    Attributes:
        history: item indices, oldest first; the API process fills it in, and `excluded`, once it has read the stored history.
        excluded: item indices that must not be returned.
        deadline: monotonic seconds after which the list is of no use any more.
        submitted: monotonic seconds from which its time in the queue counts.
        verification, seed, temperature: of `drafting.beam.rule.SearchRule`, which the engine process makes of them.
        user: whose history this is, so that what was computed for their last request need not be computed again; None for no user.
        filter: the filters that its items must pass; None for all items.
        fresh: places for fresh items; None if there are none.
        blend: what the list is blended with; None for the target's own.
        catalog: the name of the catalog whose indices these are.
        think: the most tokens of text that the target writes before the list; 0 for no text.
        prompt: token ids as bytes of int32; the API process fills it in, too.
        explain: prefixes beside the beam that an explanation of the list tells of each level; None for no explanation.
        beam_widths: prefixes that are kept at each level but the last; None for `beam_width`, the widest of them, at all.
        scored: the items whose scores are asked for, where k and beam width are 1; None for a list.
        normalise: what scores are normalised over; None for what the engine does.
        diversity: how many items of the list may have the same value of an attribute, by attribute.
        tolerance: how far a strict list may be from the exact one; None for the exact one.
        retrieved: items of the neighbour model, best first, for the engine's plan to draft, as bytes of int32; the API process fills it in.
        is_proof: True for a list that the server itself asks for: the engine makes the prompt, of a sample user with this history.
    """

    request_id: str
    history: list[int]
    k: int
    beam_width: int
    excluded: list[int]
    deadline: float
    submitted: float
    verification: Verification = Verification.STRICT
    seed: int = 0
    temperature: float = 1.0
    user: str | None = None
    filter: FilterChoice | None = None
    fresh: FreshPlaces | None = None
    blend: BlendChoice | None = None
    catalog: str = ""
    think: int = 0
    prompt: bytes = b""
    explain: int | None = None
    beam_widths: tuple[int, ...] | None = None
    scored: ScoreChoice | None = None
    is_proof: bool = False
    normalise: Normalisation | None = None
    diversity: dict[str, int] = {}
    tolerance: Tolerance | None = None
    retrieved: bytes = b""
