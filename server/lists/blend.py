"""The neighbour model's part in one request: its weight and its candidates for a blended list, and items that a plan may draft.

Invariant: what is proposed may be returned, as far as this process knows: the engine judges again, by the filters that it has then.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from drafting.array_types import BoolArray, IntArray
from drafting.beam.rule import SearchRule, Verification
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.neighbours.model import NeighbourError, NeighbourModel
from drafting.plans.fixed_plan import drafts_items
from drafting.trie.item_set import ItemSet
from server.catalogs.filters import passes
from server.catalogs.served import ServedCatalog
from server.errors import InvalidRequest
from server.schemas.choices import BlendBody
from server.settings import Settings
from server.submit import BlendChoice, FilterChoice, Submit


def load_neighbours(settings: Settings) -> NeighbourModel | None:
    """The neighbour model of a server or of a run; None without one.

    Raises:
        NeighbourError: the file can't be used, or there is a weight and no file.
    """
    if settings.neighbours is not None:
        return NeighbourModel.load(settings.neighbours)
    if settings.draft_items:
        raise NeighbourError(
            "--draft-items counts items of a neighbour model: name its file with --neighbours, or leave --draft-items out."
        )
    if drafts_items(settings.plan):
        raise NeighbourError("The plan drafts items of a neighbour model: name its file with --neighbours, or choose another plan.")
    if settings.blend:
        raise NeighbourError("--blend weighs a neighbour model: name its file with --neighbours, or leave --blend out.")
    return None


def check_known(known: CatalogNeighbours | None, settings: Settings) -> None:
    """Refuse a neighbour model that was made for another catalog.

    Raises:
        NeighbourError: it knows none of the items.
    """
    if known is not None and not known.known:
        raise NeighbourError(
            f"{settings.neighbours} knows none of the {len(known.in_model):,} items of {settings.catalog}: both must have the same ids."
        )


def blend_choice(body: BlendBody | None, default: float | None, served: ServedCatalog, rule: SearchRule) -> BlendChoice | None:
    """How a list is blended, without its candidates yet; None for the model's own list.

    Args:
        default: weight for strict lists that name none.

    Raises:
        InvalidRequest: there is no neighbour model or no weight, or the list is sampled.
    """
    is_strict = rule.verification is Verification.STRICT
    if body is None:
        return BlendChoice(default, BlendBody().candidates) if default and is_strict else None
    if (weight := default if body.weight is None else body.weight) is None:
        raise InvalidRequest("The request names no weight for blend, and the server has none of its own: give blend.weight, such as 0.5.")
    if weight == 0:
        return None
    if served.neighbours is None:
        raise InvalidRequest("The server has no neighbour model to blend with: leave blend out, or start it with --neighbours.")
    if not is_strict:
        raise InvalidRequest("Only strict lists can be blended: leave blend out, or choose strict verification.")
    return BlendChoice(weight, body.candidates)


def propose(
    choice: BlendChoice,
    served: ServedCatalog,
    history: Sequence[int],
    excluded: Sequence[int],
    named: FilterChoice | None,
    filters: Mapping[str, ItemSet],
) -> None:
    """Fill in the candidates that follow from a history.

    Args:
        history: catalog indices, oldest first.
        excluded: catalog indices of items that must not be returned.
        named: the filters that items must pass; `filters` are their sets.
    """
    assert served.neighbours is not None

    def allowed(items: IntArray) -> BoolArray:
        return np.ones(len(items), bool) if named is None else passes(items, named, filters)

    items, scores = served.neighbours.candidates(history, choice.count, excluded, allowed)
    choice.items, choice.scores = items.astype(np.int32).tobytes(), scores.tobytes()


def retrieve(submit: Submit, served: ServedCatalog, history: Sequence[int], count: int) -> bytes:
    """The best `count` items after a history, for plans that draft some, as of `Submit.retrieved`.

    A blend has asked for them already. Filters are not asked: what may not be returned is scored in vain, and never listed.
    """
    if submit.blend is not None:
        return submit.blend.items[: count * np.dtype(np.int32).itemsize]
    if served.neighbours is None or not count:
        return b""
    items, _ = served.neighbours.candidates(history, count, submit.excluded)
    return items.astype(np.int32).tobytes()
