"""From what is known of a user to a request for the engine: the prompt is built, and all that is chosen is checked against the catalog.

Invariant: a request that is made here can be served by an engine of the same catalog, within the limits of its memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from drafting.array_types import IntArray
from drafting.beam.rule import STRICT, Normalisation, SearchRule, Tolerance
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
        normalise: Normalisation | None = None,
        explain: int | None = None,
    ) -> BeamRequest:
        """A request for the k best identifiers after a history, or for a sample of k.

        Args:
            request_id: unique among the requests that run.
            history: what is known of a user, catalog indices with the oldest first, or a prompt that has been built elsewhere.
            k: identifiers to return.
            beam_width: prefixes that the search keeps of each level; None keeps k, as `generate(num_beams=k)` does. Servers ask for
                `beam_width_for`, which finds more.
            excluded_items: catalog indices of items that must not be returned.
            rule: how prefixes are ranked and drafts verified: the best ones, or a sample with a seed.
            cache_key: requests of one key, such as a user's, share prompts in the prefix cache; None keeps nothing.
            allowed_items: the only items that may be returned; None allows all. Requests with the very same object share what is worked
                out from it.
            reserved: places that only some items may take; shared as `allowed_items` are.
            think: the most tokens of text that the target writes before the list, sampled where the list is; 0 for none. Its
                `prompt.json` says how.
            blend: candidates of a neighbour model that the list is blended with, or a neighbour model that chooses them by the history.
            beam_widths: prefixes that the search keeps of each level but the last, in place of `beam_width`.
            diversity: the most items of the list that may have the same value of an attribute, by attribute, such as {"brand": 2}.
            retrieved: catalog indices of a retriever's items after the history, best first. Plans with items draft them; no list changes.
            tolerance: how far a strict list may be from the exact one; None for that one.
            normalise: what log-probabilities are normalised over; None for what the engine does.
            explain: prefixes beside the beam that an explanation tells of each level; None for no explanation.

        Raises:
            PromptError: the history is empty, or the prompt holds no token, one that the model does not know, or more than its own.
            ValueError: a number is out of range, an item no index of the catalog, places can't be reserved, the list not blended, or
                its rule takes no tolerance.
        """
        request = BeamRequest(
            request_id,
            self._prompt(history, thinks=bool(think)),
            k,
            _widest(k, beam_width, beam_widths),
            excluded_items=item_indices(excluded_items, len(self.catalog), "The request excludes"),
            rule=rule,
            cache_key=cache_key,
            allowed_items=allowed_items,
            catalog=self._name,
            reserved=reserved,
            think=Think.of(self.prompts.thinking, think, self._served.stop_tokens, rule) if think else None,
            blend=Blend.after(history, blend, self._trie, excluded_items, allowed_items),
            beam_widths=None if beam_widths is None else tuple(beam_widths),
            caps=self.catalog.caps(diversity or {}),
            retrieved=item_indices(retrieved, len(self.catalog), "The retriever names"),
            tolerance=tolerance,
            normalise=normalise,
            explain=explain,
        )
        request.check_catalog(len(self.catalog), self.catalog.identifier_length)
        return request

    def sample(self, items: Sequence[int] | IntArray) -> PromptTokens:
        """The prompt of a sample user with these items (catalog indices), of whom all is known; raises what `request` does."""
        return PromptTokens(self.prompts.sample(item_indices(items, len(self.catalog), "The history names")))

    def _prompt(self, user: UserState | PromptTokens | Sequence[int] | IntArray, *, thinks: bool) -> IntArray:
        tokens = user.tokens if isinstance(user, PromptTokens) else self._built(user, thinks=thinks)
        if self.prompts.is_nothing(tokens):
            # It would end the step of all others, too.
            raise PromptError("The prompt holds nothing for the model to read: prompt.json writes nothing of what is known of this user.")
        if len(tokens) > (most := self.prompts.max_tokens):
            # The model was loaded and checked for no longer ones: some read them wrongly, and some end the step of all others, too.
            raise PromptError(f"The prompt has {len(tokens):,} tokens, and this model's have {most:,} at most, as its prompt.json says.")
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
        self,
        request_id: str,
        history: UserState | PromptTokens | Sequence[int] | IntArray,
        scored: Scored,
        cache_key: str | None = None,
        normalise: Normalisation | None = None,
    ) -> BeamRequest:
        """A request for the log-probabilities of candidates; other arguments and errors are those of `request`."""
        return replace(self.request(request_id, history, 1, cache_key=cache_key, normalise=normalise), scored=scored)


def _widest(k: int, beam_width: int | None, beam_widths: Sequence[int] | None) -> int:
    if beam_widths is None:
        return k if beam_width is None else beam_width
    if beam_width is not None:
        raise ValueError("Give either beam_width or beam_widths, not both.")
    return max(beam_widths, default=0)
