"""From what is known of a user to a request for the engine: the prompt is built, and all that is chosen is checked against the catalog.

Invariant: a request that is made here can be served by an engine of the same catalog, within the limits of its memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from drafting.array_types import IntArray
from drafting.beam.rule import STRICT, SearchRule, Tolerance
from drafting.catalog.catalog import Catalog
from drafting.errors import PromptError
from drafting.neighbours.candidates import Blending
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.user_state import UserState
from drafting.trie.item_set import ItemSet
from drafting.trie.item_trie import ItemTrie
from verification.blend import Blend
from verification.hosts.served_model import ServedModel
from verification.request import BeamRequest, PromptTokens, ReservedPlaces, Think, checked_user, item_indices
from verification.scored import Scored


class RequestMaker:
    """Makes the requests for one catalog.

    Attributes:
        catalog: whose indices items are.
        prompts: builds the prompts.
    """

    def __init__(self, catalog: Catalog, prompts: PromptBuilder, trie: ItemTrie, name: str, served: ServedModel) -> None:
        """The trie must hold the catalog's identifiers as the served model's token ids; requests call the catalog by `name`."""
        self.catalog = catalog
        self.prompts = prompts
        self._trie = trie
        self._name = name
        self._served = served

    def request(
        self,
        request_id: str,
        history: UserState | PromptTokens | Sequence[int] | IntArray,
        k: int,
        beam_width: int | None = None,
        excluded_items: Sequence[int] | IntArray = (),
        rule: SearchRule = STRICT,
        cache_key: str | None = None,
        allowed_items: ItemSet | None = None,
        reserved: ReservedPlaces | None = None,
        think: int = 0,
        blend: Blend | Blending | None = None,
        beam_widths: Sequence[int] | None = None,
        diversity: Mapping[str, int] | None = None,
        retrieved: Sequence[int] | IntArray = (),
        tolerance: Tolerance | None = None,
    ) -> BeamRequest:
        """A request for k identifiers after `history` (a `UserState`, catalog indices, or a prompt): the k best, or a sample by `rule`.
        Without `beam_width` a search keeps k prefixes, as `generate(num_beams=k)` does; servers ask for `beam_width_for`, which finds more.
        `beam_widths` are those of each level but the last, in its place.

        With `diversity` such as {"brand": 2}, so many items of the list, at most, have any one value of an attribute of the catalog.
        `retrieved` are items that a retriever finds best after the history, best first: plans with items draft them, and no list changes.
        With a `tolerance`, the list may be so far from the exact one; only a strict list has one.
        With `think`, the target writes so many tokens of text at most before them, sampled where the list is; its `prompt.json` says how.
        Requests with the very same `allowed_items` object, or items of `reserved` places, share what is worked out from it.

        Raises:
            PromptError: the history is empty, or the prompt holds a token that the model does not know.
            ValueError: a number is out of range, an item no index of the catalog, places can't be reserved, the list not blended, or
                its rule takes no tolerance.
        """
        request = BeamRequest(
            request_id,
            self._prompt(history, thinks=bool(think)),
            k,
            _widest(k, beam_width, beam_widths),
            item_indices(excluded_items, len(self.catalog), "The request excludes"),
            rule,
            cache_key,
            allowed_items,
            self._name,
            reserved,
            Think.of(self.prompts.thinking, think, self._served.stop_tokens, rule) if think else None,
            blend=Blend.after(history, blend, self._trie, excluded_items, allowed_items),
            beam_widths=None if beam_widths is None else tuple(beam_widths),
            caps=self.catalog.caps(diversity or {}),
            retrieved=item_indices(retrieved, len(self.catalog), "The retriever names"),
            tolerance=tolerance,
        )
        request.check_catalog(len(self.catalog), self.catalog.identifier_length)
        return request

    def sample(self, items: Sequence[int] | IntArray) -> PromptTokens:
        """The prompt of a sample user with these items (catalog indices), of whom all is known; raises what `request` does."""
        return PromptTokens(self.prompts.sample(item_indices(items, len(self.catalog), "The history names")))

    def _prompt(self, user: UserState | PromptTokens | Sequence[int] | IntArray, *, thinks: bool) -> IntArray:
        tokens = user.tokens if isinstance(user, PromptTokens) else self._built(user, thinks=thinks)
        unknown = tokens[(tokens < 0) | (tokens >= self._served.known_tokens)]
        if len(unknown):
            # Looked up among the embeddings, it would end the step of all others, too.
            first = int(unknown[0])
            name = first if first < 0 else self.prompts.tokenizer.rust.id_to_token(first)
            raise PromptError(f"The prompt holds {name!r}, of which the model, or its draft, has no embedding.")
        return tokens

    def _built(self, user: UserState | Sequence[int] | IntArray, *, thinks: bool) -> IntArray:
        return self.prompts.build(checked_user(user, len(self.catalog)), thinks=thinks)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids of the target, such as `BeamResult.thought`, without special tokens."""
        return self.prompts.tokenizer.decode(tokens)

    def score_request(
        self, request_id: str, history: UserState | PromptTokens | Sequence[int] | IntArray, scored: Scored, cache_key: str | None = None
    ) -> BeamRequest:
        """A request for the log-probabilities of candidates after `history`; raises what `request` does."""
        return replace(self.request(request_id, history, 1, cache_key=cache_key), scored=scored)


def _widest(k: int, beam_width: int | None, beam_widths: Sequence[int] | None) -> int:
    if beam_widths is None:
        return k if beam_width is None else beam_width
    if beam_width is not None:
        raise ValueError("Give either beam_width or beam_widths, not both.")
    return max(beam_widths, default=0)
