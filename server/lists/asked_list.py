"""`AskedList`: one request for a list from its admission to its answer, with all that the answer is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from drafting.prompts.builder import PromptBuilder
from drafting.trie.item_set import ItemSet
from server.catalogs.served import ServedCatalog
from server.lists.fresh_places import FreshItems, fresh_items
from server.schemas.recommendations import RecommendationRequest
from server.submit import Submit
from verification.result import BeamResult


@dataclass(frozen=True, slots=True)
class AskedList:
    """One list that is asked for.

    Attributes:
        body: what the client has sent.
        served: the version of the catalog that it is answered with.
        submit: what the engine is asked; items and prompt are filled in when the user is read.
        builder: builds the prompts of that version.
        started: monotonic seconds at which the request came.
        filters: sets of items of the filters that the body names, as they were when it came; deleting one does not change this list.
    """

    body: RecommendationRequest
    served: ServedCatalog
    submit: Submit
    builder: PromptBuilder
    started: float
    filters: Mapping[str, ItemSet]

    def fresh_of(self, result: BeamResult) -> FreshItems | None:
        """Which items of the list are fresh; None where no places were kept for such."""
        return None if self.submit.fresh is None else fresh_items(self.submit.fresh, self.served.catalog, result.items)
