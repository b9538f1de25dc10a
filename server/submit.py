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
        any: filters of which an item must pass at least one; empty for no such condition.
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
        since: the first day, in days since 1970, on which a fresh item may have been added.
        places: how many of the k places are reserved for fresh items.
    """

    since: int
    places: int


class BlendChoice(msgspec.Struct):
    """A list that is blended with the candidates of a neighbour model.

    Attributes:
        weight: weight of the logarithm of a candidate's neighbour score.
        count: the most candidates that the neighbour model proposes.
        items: catalog indices of the candidates, as bytes of int32; filled in by the API process once it has read the stored history.
        scores: neighbour scores of the candidates, as bytes of float64; filled in with them.
    """

    weight: float
    count: int
    items: bytes = b""
    scores: bytes = b""


class ScoreChoice(msgspec.Struct, frozen=True):
    """Items whose scores are asked for, in place of a list.

    Attributes:
        items: catalog indices as bytes of int32.
        prefixes: number of prefixes of their identifiers that the target has to compute.
    """

    items: bytes
    prefixes: int


class Submit(msgspec.Struct, tag=True):
    """Search for one list, or score items.

    Attributes:
        request_id: id of the request, by which messages of the engine name it.
        history: catalog indices, oldest first; filled in by the API process once it has read the stored history.
        k: identifiers of the list; 1 where scores are asked for.
        beam_width: prefixes that are kept at each level, or at the widest one where `beam_widths` names each; 1 where scores are asked for.
        excluded: catalog indices that must not be returned; filled in with `history`.
        deadline: monotonic seconds after which nobody waits for the answer.
        submitted: monotonic seconds from which the time in the queue counts.
        verification, seed, temperature: the fields of `drafting.beam.rule.SearchRule`, which the engine process makes of them.
        user: id of the user, so that what was computed for their last request is used again; None where no user is named.
        filter: the filters that items of the list must pass; None for no filters.
        fresh: the places that are reserved for fresh items; None for no such places.
        blend: what the list is blended with; None for the target's own list.
        catalog: handle of the catalog that all indices here are of.
        think: the most tokens of text that the target writes before the list; 0 for no text.
        prompt: token ids as bytes of int32; filled in with `history`.
        explain: prefixes beside the beam that an explanation of the list tells of each level; None for no explanation.
        beam_widths: prefixes that are kept at each level but the last; None where `beam_width` holds for all levels.
        scored: the items whose scores are asked for; None for a list.
        is_proof: True for a list that the server itself asks for: the engine makes the prompt, of a sample user with this history.
        normalise: what scores are normalised over; None for the engine's own setting.
        diversity: how many items of the list may have the same value of an attribute, by attribute; empty for no caps.
        tolerance: how far a strict list may be from the exact one; None for the exact list.
        retrieved: items of the neighbour model that the engine's plan may draft, best first, as bytes of int32; filled in with `history`.
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
