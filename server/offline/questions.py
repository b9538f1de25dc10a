"""Users as lines of a file, and the questions that they ask.

Invariant: a line that can't be used becomes a sentence, never an exception: in a file of a million users there is always one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from drafting.beam.rule import STRICT, SearchRule
from drafting.catalog.catalog import Catalog
from server.catalogs.store import known_items
from server.errors import UnknownItem
from server.schemas.recommendations import MAX_K
from verification.batch import ScoresNotFinite
from verification.recommender import Recommender
from verification.request import BeamRequest
from verification.result import BeamResult


@dataclass(frozen=True)
class Question:
    """One list to make; items are catalog indices, oldest first."""

    history: Sequence[int]
    k: int
    beam_width: int | None = None
    excluded: Sequence[int] = ()
    rule: SearchRule = STRICT


@dataclass(frozen=True)
class Defaults:
    """Defaults for users whose line does not set a value.

    Attributes:
        seed_is_drawn: True if the seed was drawn at random, so that another may be used.
    """

    k: int
    beam_width: int | None
    exclude: Sequence[str]
    exclude_history: bool
    rule: SearchRule = STRICT
    seed_is_drawn: bool = False


class UserLine(msgspec.Struct):
    """One line of the input file; other fields are passed over, and ids may be whole numbers."""

    history: list[str | int]
    user_id: str | int | None = None
    k: int | None = None
    beam_width: int | None = None
    exclude: list[str | int] = []


_DECODER = msgspec.json.Decoder(UserLine)


def read_line(line: bytes) -> UserLine | str:
    """A line of the file, or a sentence about what is wrong with it."""
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"The line is not a user: {error}."


def make_question(catalog: Catalog, line: UserLine, defaults: Defaults, number: int = 0) -> Question | str:
    """The question of one user, the `number`-th of its file, or a sentence about why there is none; the engine judges the beam width."""
    k = defaults.k if line.k is None else line.k
    beam_width = (defaults.beam_width if line.k is None else None) if line.beam_width is None else line.beam_width
    if not line.history:
        return "The history is empty: recommendations need at least one item."
    if not 1 <= k <= MAX_K:
        return f"k must be from 1 to {MAX_K}, got {k}."
    try:
        history = known_items(catalog, list(map(str, line.history)), "history")
        excluded = known_items(catalog, [*defaults.exclude, *map(str, line.exclude)], "exclude")
    except UnknownItem as error:
        return str(error)
    barred = {*excluded, *history} if defaults.exclude_history else set(excluded)
    return Question(history, k, beam_width, sorted(barred), defaults.rule.numbered(number))


def answers(recommender: Recommender, questions: Iterable[Question | str]) -> Iterator[BeamResult | str]:
    """The list for each question in order, or a sentence for one that can't be answered; sentences among the questions are passed on."""
    requests = (
        question if isinstance(question, str) else _request(recommender, str(number), question) for number, question in enumerate(questions)
    )
    for answer in recommender.search(requests):
        yield str(answer) if isinstance(answer, ScoresNotFinite) else answer


def _request(recommender: Recommender, request_id: str, question: Question) -> BeamRequest | str:
    try:
        request = recommender.request(request_id, question.history, question.k, question.beam_width, question.excluded, question.rule)
    except ValueError as error:
        return str(error)
    if not recommender.engine.fits(request):
        return f"This list needs more than the engine's {recommender.engine.total_slots} KV slots: ask for less, or raise --kv-memory-gib."
    return recommender.engine.refusal(request) or request
