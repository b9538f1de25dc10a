"""From users as JSON to their lists as JSON, line by line."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import msgspec

from drafting.beam.rule import Verification
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.errors import SetupError
from drafting.neighbours.candidates import Blending, CatalogNeighbours
from drafting.plans.fixed_plan import refusal_without_server
from server.engine.loading import load_recommender
from server.lists.blend import check_known, load_neighbours
from server.lists.lines import item_lines, rule_lines, usage_lines
from server.offline.made import Made, Written
from server.offline.questions import Defaults, Question, UserLine, answers, make_question, read_line
from server.offline.users import Row
from server.settings import Settings
from verification.recommender import Recommender
from verification.result import BeamResult


class OfflineError(SetupError):
    """A run that can't be made; the message is a sentence."""


class ListMaker:
    """The model and the catalog, and what a run asks of them.

    Attributes:
        made: the lists that it has made, and those that it could not make.
    """

    made = Made()

    def __init__(self, settings: Settings, defaults: Defaults, catalog: Catalog | None = None) -> None:
        """
        Args:
            catalog: the catalog of the settings, if it is loaded already.

        Raises:
            SetupError: the parts can't be loaded.
        """
        self.catalog = load_catalog(settings.catalog) if catalog is None else catalog
        self.defaults = replace(defaults, blending=blending_of(settings, self.catalog))
        try:
            self.catalog.caps(defaults.diversity or {})
        except ValueError as error:
            raise OfflineError(str(error)) from error
        self._recommender = load_recommender(settings.engine_options, self.catalog)

    def lines(self, rows: Iterable[Row]) -> Iterator[bytes]:
        """The list of each row, or an error, in their order and without line ends."""
        # The questions run ahead of the answers by as many users as fill the engine; their labels wait here.
        labels: deque[tuple[Row, dict[str, Any]]] = deque()
        for answer in answers(self._recommender, self._questions(rows, labels)):
            row, label = labels.popleft()
            if isinstance(answer, str):
                place = {"line": row.line} if row.file is None else {"file": row.file, "line": row.line}
                self.made += Made.of(Written(answer, row.file, row.line))
                yield msgspec.json.encode(place | label | {"error": answer})
            else:
                self.made += Made(1)
                yield msgspec.json.encode(label | found_lines(self._recommender, answer))

    def _questions(self, rows: Iterable[Row], labels: deque[tuple[Row, dict[str, Any]]]) -> Iterator[Question | str]:
        """The question of each row; the row goes to `labels`, with the label of its answer."""
        for row in rows:
            line = row.text if isinstance(row.text, str) else read_line(row.text)
            question = line if isinstance(line, str) else make_question(self.catalog, line, self.defaults, row.number)
            label: dict[str, Any] = {}
            if isinstance(line, UserLine) and line.user_id is not None:
                label["user_id"] = line.user_id
            if isinstance(question, Question) and question.note:
                label["note"] = question.note
            labels.append((row, label))
            yield question

    def close(self) -> None:
        """Free the model."""
        self._recommender.close()


def found_lines(recommender: Recommender, answer: BeamResult) -> dict[str, Any]:
    """The fields of a list, named as in `schemas.RecommendationAnswer`."""
    thought = {} if answer.thought is None else {"thought": recommender.text(answer.thought)}
    items = item_lines(recommender.catalog, answer.items, blend=answer.blend)
    return {**rule_lines(answer.rule), "items": items, **thought, "usage": usage_lines(answer.usage)}


def blending_of(settings: Settings, catalog: Catalog) -> Blending | None:
    """How lists are blended; None if they are the model's own.

    Raises:
        NeighbourError: the neighbour model can't be used, or was made for another catalog.
        OfflineError: nothing says how much it weighs, or lists are sampled; or the plan drafts its items.
    """
    if refusal := refusal_without_server(settings.plan):
        raise OfflineError(refusal)
    if (model := load_neighbours(settings)) is None:
        return None
    if settings.blend is None:
        raise OfflineError("Say how much the neighbour model weighs: --blend 0.5, or leave --neighbours out.")
    if settings.verification is not Verification.STRICT:
        raise OfflineError("Only strict lists can be blended: leave --neighbours out, or choose strict verification.")
    neighbours = CatalogNeighbours.of(model, catalog)
    check_known(neighbours, settings)
    return Blending(neighbours, settings.blend) if settings.blend else None
