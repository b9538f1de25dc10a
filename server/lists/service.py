"""From a request body to its answer: looks up names, reads what is stored of the user, asks the engine, writes the list.

Invariant: the engine only ever sees indices of the catalog whose version the answer names.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from drafting.beam.rule import SearchRule, Tolerance, Verification
from drafting.catalog.catalog import Catalog
from drafting.catalog.json_values import listed
from drafting.errors import quoted
from server.catalogs.filters import check_choice
from server.catalogs.served import ServedCatalog, found_items, known_items
from server.errors import InvalidRequest, NothingKnown, UnknownField
from server.keys.key import Key
from server.lists.asked_list import AskedList
from server.lists.asking import Asking
from server.lists.blend import blend_choice, propose, retrieve
from server.lists.cold_start import ColdStart, popular_list
from server.lists.diversity import caps_of
from server.lists.explanation import ExplanationPlaces, explanation_lines
from server.lists.fresh_places import FreshItems, fresh_places
from server.lists.lines import item_lines, note_lines, precision_lines, rule_lines, timing_lines, usage_lines
from server.lists.users import KnownUser, check_given, known_user, told_unknown, user_notes
from server.messages import FinishedList
from server.metrics.ids import new_id
from server.schemas.explanations import ExplainRequest
from server.schemas.recommendations import RecommendationRequest
from server.services import Services
from server.submit import FilterChoice, Submit
from server.try_again import ExplanationsBusy
from verification.lengths import beam_width_for, levels_sentence, width_refusal
from verification.result import BeamResult

RELAXED_NOTE = "Relaxed verification is not distribution-preserving: which items are sampled also depends on the draft."

POPULAR_NOTE = "The list is of popular items, not of the model's."

NO_CANDIDATES_NOTE = "The neighbour model proposes nothing eligible after this history, so the list is the model's own."

UNUSED_TOLERANCE_NOTE = "The tolerance was not used: lists with fresh places, a blend, caps of diversity or an explanation take none."


class RecommendationService:
    """Answers recommendation requests."""

    def __init__(self, services: Services) -> None:
        self._settings = services.settings
        # Worked out once, as it may look at the disk.
        self._model_name = services.settings.model_name
        self._catalogs = services.catalogs
        self._engine = services.engine
        self._asking = Asking(services)
        self._prompts = services.prompts
        self._cold_start = ColdStart(services)
        self._metrics = services.metrics
        self._explaining = ExplanationPlaces()
        self._metrics.health.open_catalog(self._catalogs.active.name, len(self._catalogs.active.catalog))
        self._metrics.health.count_known(lambda: known.known if (known := self._catalogs.active.neighbours) else 0)

    async def recommend(self, body: RecommendationRequest, key: Key | None = None) -> dict[str, Any]:
        """The answer to a request, as `schemas.RecommendationAnswer` describes it.

        Args:
            key: the key of the client, which bounds what it may ask for; None on a server without keys.

        Raises:
            ServerError: as each kind of it says.
            TimeoutError: the request's timeout passed while its list was made.
        """
        started = time.monotonic()
        with self._catalogs.lease() as served:
            submit = self._submit(body, served, started, key)
            filters = {} if submit.filter is None else {name: served.filters[name] for name in submit.filter.names}
            _check_fields(body.fields, served.catalog)
            with self._asking.admitted(body, submit) as request:
                builder = await self._prompts.builder(served, submit.deadline)
                asked = AskedList(body, served, submit, builder, started, filters)
                try:
                    user = await self._read_user(asked)
                except NothingKnown as error:
                    return await self._popular(asked, error)
                finished = await self._asking.answer(request)
            fresh = asked.fresh_of(finished.result)
            self._observe(asked, finished.result, user.met, fresh)
            return self._answer(asked, finished, fresh, self._notes(asked, finished.result, user, fresh))

    async def _popular(self, asked: AskedList, why: NothingKnown) -> dict[str, Any]:
        """The list of popular items for a user of whom nothing is known; raises `why` where there is none."""
        body, served, submit = asked.body, asked.served, asked.submit
        if (popular := await self._cold_start.popular(served, submit.deadline)) is None:
            raise why
        if body.exclude_history:
            # Of a history nothing is in the catalog, or there is none; of the behaviours that a request brings beside it, some may be.
            submit.excluded = sorted({*submit.excluded, *known_user(served.catalog, body, 0).met})
        submit.submitted = time.monotonic()
        result = await popular_list(popular, served, submit, asked.filters)
        fresh = asked.fresh_of(result)
        self._observe(asked, result, (), fresh)
        self._metrics.health.popular_lists.inc(1, why.reason)
        unknown = found_items(served.catalog, body.exclude)[1]
        notes = [str(why), POPULAR_NOTE, *told_unknown({"exclude": unknown} if unknown else {}), *_shortages(body, result, fresh)]
        return self._answer(asked, FinishedList(result, 0, 0), fresh, notes) | {"exact": False, "source": "popular"}

    async def explain(self, body: ExplainRequest, key: Key | None = None) -> dict[str, Any]:
        """The answer to a request with the tree that its list was found in, as `schemas.ExplainedAnswer` describes it.

        Raises:
            ExplanationsBusy: as many lists as the server explains at a time are being explained.
            ServerError, TimeoutError: as `recommend`.
        """
        try:
            with self._explaining.place():
                answer = await self.recommend(body, key)
        except ExplanationsBusy as error:
            self._metrics.refused.inc(1, error.reason)
            raise
        self._metrics.health.explained_lists.inc("explanation" in answer)
        return answer

    def _submit(self, body: RecommendationRequest, served: ServedCatalog, started: float, key: Key | None) -> Submit:
        """The parameters of a request to the engine, without the items."""
        rule = self._rule(body)
        beam_width = self._beam_width(body, rule, served.catalog)
        if key is not None:
            with self._metrics.keys.sized(key.name):
                key.check(body.k, body.widest)
            beam_width = body.widest or key.width(body.k, beam_width)
        return Submit(
            request_id=f"rec-{new_id()}",
            history=[],
            k=body.k,
            beam_width=beam_width,
            excluded=[],
            deadline=started + (body.timeout_ms or self._settings.timeout_ms) / 1000,
            submitted=started,
            verification=rule.verification,
            seed=rule.seed,
            temperature=rule.temperature,
            user=body.user_id,
            filter=_filter(body, served),
            fresh=None if body.fresh is None else fresh_places(body.fresh, served.catalog, rule),
            blend=blend_choice(body.blend, self._settings.blend, served, rule),
            catalog=served.handle,
            think=self._text_tokens(body),
            explain=body.others if isinstance(body, ExplainRequest) else None,
            beam_widths=None if body.beam_widths is None else tuple(body.beam_widths),
            normalise=body.normalise,
            tolerance=_tolerance(body, rule),
            diversity=caps_of(body.diversity, served.catalog),
        )

    async def _read_user(self, asked: AskedList) -> KnownUser:
        """Fill in items and prompt, and return what is known of the user, as far as it was read or given."""
        body, served, submit = asked.body, asked.served, asked.submit
        if body.strict_ids:
            known_items(served.catalog, body.exclude, "exclude")
            check_given(body, served.catalog)
        barred, missing = found_items(served.catalog, body.exclude)
        excluded = {item for item in barred if item >= 0}
        submit.excluded = sorted(excluded)
        drafted = self._asking.ready.drafted_items
        is_asked = submit.blend is not None or drafted > 0
        window = served.neighbours.model.window if is_asked and served.neighbours is not None else 0
        user = await self._asking.read_user(body, served, submit, asked.builder, window, whole=body.exclude_history)
        if missing:
            user = replace(user, unknown={**user.unknown, "exclude": missing})
        if body.exclude_history:
            submit.excluded = sorted(excluded.union(user.met))
        if submit.blend is not None:
            propose(submit.blend, served, user.history or user.met, submit.excluded, submit.filter, asked.filters)
        if drafted:
            submit.retrieved = retrieve(submit, served, user.history or user.met, drafted)
        self._asking.write_prompt(user, submit, asked.builder)
        return user

    def _observe(self, asked: AskedList, result: BeamResult, met: Sequence[int], fresh: FreshItems | None) -> None:
        body, health = asked.body, self._metrics.health
        health.observe_filters(exclude=bool(body.exclude), exclude_history=body.exclude_history, named=body.filter is not None)
        health.observe_list(asked.served.name, [item.item for item in result.items], met, short=result.identifiers < body.k)
        if fresh is not None:
            health.observe_fresh(sum(fresh.fresh), short=fresh.missing > 0)
        if result.blend is not None:
            health.observe_blend(result.blend.sources)

    def _answer(self, asked: AskedList, finished: FinishedList, fresh: FreshItems | None, notes: Iterable[str]) -> dict[str, Any]:
        body, served, result = asked.body, asked.served, finished.result
        labels = () if fresh is None else fresh.fresh
        answer: dict[str, Any] = {
            "id": result.request_id,
            "model": self._model_name,
            "catalog_version": served.name,
            **precision_lines(self._asking.ready.precision, result.rule, result.tolerance),
            **rule_lines(result.rule),
            "items": item_lines(served.catalog, result.items, body.fields, labels, result.blend, brief=body.format == "ids"),
            "usage": usage_lines(result.usage),
            "timing_ms": timing_lines(finished, asked.started, asked.submit.submitted),
        }
        if result.thought is not None and body.think is not None and body.think.return_text:
            answer["thought"] = asked.builder.tokenizer.decode(result.thought)
        if result.explanation is not None and isinstance(body, ExplainRequest):
            answer["explanation"] = explanation_lines(served.catalog, result.items, result.explanation, body.others)
        return answer | note_lines(notes)

    def _rule(self, body: RecommendationRequest) -> SearchRule:
        try:
            return SearchRule.choose(body.verification or self._settings.verification, body.seed, body.temperature)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error

    def _beam_width(self, body: RecommendationRequest, rule: SearchRule, catalog: Catalog) -> int:
        """The beam width that a request names, that of its widest level if it names one for each, or the usual one if it names none."""
        ready, most = self._engine.supervisor.ready, self._settings.max_beam_width
        if body.beam_widths is not None and len(body.beam_widths) != catalog.identifier_length - 1:
            raise InvalidRequest(levels_sentence(len(body.beam_widths), catalog.identifier_length))
        usual = min(self._settings.beam_width, most)
        width = body.widest or beam_width_for(body.k, rule, usual, None if ready is None else ready.widest_beam)
        if refusal := width_refusal(width, most):
            raise InvalidRequest(refusal)
        return width

    def _text_tokens(self, body: RecommendationRequest) -> int:
        """The most tokens of text before the list, which the model must be able to write."""
        if body.think is None:
            return 0
        most = self._asking.ready.text_tokens
        if not most:
            raise InvalidRequest("The model can't think before a list: its prompt.json has no field think.")
        if body.think.max_tokens > most:
            raise InvalidRequest(f"think.max_tokens must be at most {most}, as the model's prompt.json says, got {body.think.max_tokens}.")
        return body.think.max_tokens

    def _notes(self, asked: AskedList, result: BeamResult, user: KnownUser, fresh: FreshItems | None) -> Iterable[str]:
        body = asked.body
        if result.rule.verification is Verification.RELAXED:
            yield RELAXED_NOTE
        if body.tolerance is not None and result.tolerance is None:
            yield UNUSED_TOLERANCE_NOTE
        builder, thinks = asked.builder, asked.submit.think > 0
        yield from user_notes(body, user, builder.reads_of(thinks=thinks), builder.most_items(thinks=thinks))
        if result.blend is not None and not result.usage.candidates:
            yield NO_CANDIDATES_NOTE
        yield from _shortages(body, result, fresh, _narrowest(body, asked.served.catalog))


def _narrowest(body: RecommendationRequest, catalog: Catalog) -> int | None:
    """The smallest of the request's `beam_widths` that is smaller than its level of the trie; None if there is none.

    None also stands for a search that finds k identifiers wherever k are eligible: one with a single `beam_width`, which is never smaller
    than k, or one with caps, which goes on until it has k.
    """
    if body.beam_widths is None or body.diversity:
        return None
    return min((width for depth, width in enumerate(body.beam_widths, 1) if width < catalog.trie.level_size(depth)), default=None)


def _shortages(body: RecommendationRequest, result: BeamResult, fresh: FreshItems | None, narrowest: int | None = None) -> Iterable[str]:
    """Sentences about identifiers and fresh items of which a list has fewer than its request asks for.

    Args:
        narrowest: that of `_narrowest`; a search that has found fewer than so many has cut off nothing that is eligible.
    """
    caps = f" under the {'cap' if len(body.diversity) == 1 else 'caps'} of diversity" if body.diversity else ""

    def told(found: int, what: str, asked: str) -> str:
        if narrowest is not None and found >= narrowest:
            return f"The search found only {found} {what}, fewer than the {asked}: wider beam_widths may find more."
        return f"Only {found} {what} were eligible{caps}, fewer than the {asked}."

    if (identifiers := result.identifiers) < body.k:
        yield told(identifiers, "identifiers of the catalog", f"{body.k} asked for")
    if body.fresh is not None and fresh is not None and fresh.missing:
        yield told(body.fresh.min - fresh.missing, "identifiers of fresh items", f"{body.fresh.min} places for them")


def _tolerance(body: RecommendationRequest, rule: SearchRule) -> Tolerance | None:
    if body.tolerance is None:
        return None
    if rule.verification is not Verification.STRICT:
        raise InvalidRequest("Only strict lists have a tolerance: leave it out, or choose strict verification.")
    return body.tolerance.tolerance


def _filter(body: RecommendationRequest, served: ServedCatalog) -> FilterChoice | None:
    if (named := body.filter) is None:
        return None
    choice = FilterChoice(tuple(named.all), tuple(named.any), tuple(named.without))
    check_choice(choice, served)
    return choice


def _check_fields(fields: Sequence[str], catalog: Catalog) -> None:
    if unknown := next((name for name in fields if name not in catalog.attributes), None):
        known = listed(catalog.attributes)
        raise UnknownField(f"The catalog has no attribute {quoted(unknown)}, which fields names; it has {known}.")
