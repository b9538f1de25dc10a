"""Users as lines of a file, and the questions that they ask.

Invariant: a line that can't be used becomes a sentence, never an exception: in a file of a million users there is always one.
"""

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import ValidationError

from drafting.beam.rule import LONGEST_LIST, SERVED_BEAM_WIDTH, STRICT, SearchRule, Tolerance, Verification
from drafting.catalog.catalog import Catalog
from drafting.neighbours.candidates import Blending
from drafting.prompts.user_state import UserState
from drafting.undecodable import UNDECODABLE
from server.catalogs.served import found_items
from server.engine.loading import memory_told
from server.lists.users import KnownUser, known_user, none_known, told_unknown
from server.schemas.given import MAX_HISTORY, GivenUser
from server.schemas.sentences import validation_sentence
from verification.batch import RequestTooLarge, ScoresNotFinite
from verification.lengths import beam_width_for
from verification.recommender import Recommender
from verification.request import BeamRequest
from verification.result import BeamResult


@dataclass(frozen=True)
class Question:
    """One list to make, after what is known of a user or after catalog indices, oldest first.

    Attributes:
        note: what to know about the list; empty if there is nothing.
    """

    history: UserState | Sequence[int]
    k: int
    beam_width: int | None = None
    excluded: Sequence[int] = ()
    rule: SearchRule = STRICT
    think: int = 0
    blending: Blending | None = None
    note: str = ""
    beam_widths: Sequence[int] | None = None
    diversity: Mapping[str, int] | None = None
    tolerance: Tolerance | None = None


@dataclass(frozen=True)
class Defaults:
    """Defaults for users whose line does not set a value.

    Attributes:
        seed_is_drawn: True if the seed was drawn at random, so that another may be used.
        think: the most tokens of text that the model writes before a list; 0 for no text.
        blending: how lists are blended; None for the model's own.
        diversity: how many items of a list may have the same value of an attribute, by attribute.
        tolerance: how far a strict list may be from the exact one; None for that one.
        strict_ids: True to refuse users with an item that the catalog does not have, which is passed over otherwise.
    """

    k: int
    beam_width: int | None
    exclude: Sequence[str]
    exclude_history: bool
    rule: SearchRule = STRICT
    seed_is_drawn: bool = False
    think: int = 0
    blending: Blending | None = None
    strict_ids: bool = False
    beam_widths: Sequence[int] | None = None
    diversity: Mapping[str, int] | None = None
    tolerance: Tolerance | None = None


class UserLine(msgspec.Struct):
    """One line of the input file; a null is a field that is left out, other fields are passed over, and ids may be whole numbers."""

    history: list[str | int | dict[str, Any]] | None = None
    user_id: str | int | None = None
    behaviours: dict[str, list[str | int | dict[str, Any]]] | None = None
    profile: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    k: int | None = None
    beam_width: int | None = None
    beam_widths: list[int] | None = None
    exclude: list[str | int] | None = None


_DECODER = msgspec.json.Decoder(UserLine)


def read_line(line: bytes) -> UserLine | str:
    """A line of the file, or a sentence about what is wrong with it."""
    try:
        return _DECODER.decode(line.removeprefix(BOM_UTF8))
    except UNDECODABLE as error:
        return f"The line is not a user: {error}."


def make_question(catalog: Catalog, line: UserLine, defaults: Defaults, number: int = 0, stored: KnownUser | None = None) -> Question | str:
    """The question of one user, the `number`-th of its file, or a sentence about why there is none; the engine judges the beam width.

    Args:
        stored: what is known of the user where it is not the line that brings it.
    """
    k = defaults.k if line.k is None else line.k
    widths: tuple[int | None, Sequence[int] | None] = line.beam_width, line.beam_widths
    if widths == (None, None):
        widths = _default_widths(defaults, k)
    if stored is None and not line.history and not line.behaviours and not line.context:
        if line.history is None:
            return "The line has no history: give one, or behaviours or a context of which a prompt can be made."
        return "The history is empty: recommendations need at least one item."
    if not 1 <= k <= LONGEST_LIST:
        return f"k must be from 1 to {LONGEST_LIST}, got {k}."
    if defaults.tolerance is not None and defaults.tolerance.items >= k:
        return f"The tolerance must be of fewer items than k, got {defaults.tolerance.items} and k = {k}."
    try:
        user = stored or _user(catalog, line)
    except ValidationError as error:
        first = error.errors()[0]
        return validation_sentence({**first, "loc": ("line", *first["loc"])})
    excluded, missing = found_items(catalog, [*defaults.exclude, *map(str, line.exclude or ())])
    unknown = {**user.unknown, **({"exclude": missing} if missing else {})}
    if unknown and defaults.strict_ids:
        return none_known({name: ids[:1] for name, ids in unknown.items()})
    if user.unknown and not user.met and not line.context:
        return none_known(user.unknown)
    barred = {item for item in excluded if item >= 0} | ({*user.met} if defaults.exclude_history else set())
    return Question(
        user.state,
        k,
        beam_width=widths[0],
        excluded=sorted(barred),
        rule=defaults.rule.numbered(number),
        think=defaults.think,
        blending=defaults.blending,
        note=" ".join(told_unknown(unknown)),
        beam_widths=widths[1],
        diversity=defaults.diversity,
        tolerance=defaults.tolerance,
    )


def _default_widths(defaults: Defaults, k: int) -> tuple[int | None, Sequence[int] | None]:
    """The widths of a line that sets none; where it asks for more than fits in them, none, and the engine widens them."""
    longest = defaults.beam_width
    if widths := defaults.beam_widths:
        longest = min(widths) if defaults.rule.verification is Verification.GUMBEL else widths[-1]
    return (None, None) if longest is None or longest < k else (defaults.beam_width, widths)


def _user(catalog: Catalog, line: UserLine) -> KnownUser:
    """What a line brings of its user. Raises ValidationError."""
    history = list(map(_entry, line.history or ()))
    if not line.behaviours and not line.profile and not line.context and all(isinstance(entry, str) for entry in history):
        # Most files are nothing but ids, and of those a line may have any number.
        given = GivenUser.model_construct(history=history)
    else:
        behaviours = {kind: list(map(_entry, entries)) for kind, entries in (line.behaviours or {}).items()}
        told = {"history": history, "behaviours": behaviours, "profile": line.profile, "context": line.context or {}}
        given = GivenUser.model_validate(told)
    return known_user(catalog, given, len(history) + MAX_HISTORY, user_id=None if line.user_id is None else str(line.user_id))


def _entry(entry: str | int | dict[str, Any]) -> str | dict[str, Any]:
    if not isinstance(entry, dict):
        return str(entry)
    return entry | {"item_id": str(entry["item_id"])} if type(entry.get("item_id")) is int else entry


def answers(recommender: Recommender, questions: Iterable[Question | str]) -> Iterator[BeamResult | str]:
    """The list for each question in order, or a sentence for one that can't be answered; sentences among the questions are passed on.

    Raises:
        SetupError: there is too little memory for a forward.
    """
    requests = (
        question if isinstance(question, str) else _request(recommender, str(number), question) for number, question in enumerate(questions)
    )
    with memory_told():
        for answer in recommender.search(requests):
            yield str(answer) if isinstance(answer, ScoresNotFinite) else answer


def _request(recommender: Recommender, request_id: str, question: Question) -> BeamRequest | str:
    try:
        width = question.beam_width
        if width is None and question.beam_widths is None:
            least = min(SERVED_BEAM_WIDTH, recommender.engine.max_beam_width)
            width = beam_width_for(question.k, question.rule, least, recommender.engine.plan.widest_beam)
        request = recommender.request(
            request_id,
            question.history,
            question.k,
            width,
            excluded_items=question.excluded,
            rule=question.rule,
            think=question.think,
            blend=question.blending,
            beam_widths=question.beam_widths,
            diversity=question.diversity,
            tolerance=question.tolerance,
        )
    except ValueError as error:
        return str(error)
    if not recommender.engine.fits(request):
        return str(RequestTooLarge(recommender.engine, request.beam_width))
    return recommender.engine.refusal(request) or request
