"""From a request for scores to its answer, as `server.lists.service` does it for lists.

Invariant: a score is what a strict list says of the same item after the same history, whatever else is asked for with it; so nothing of a
list's choices (filters, blends, samples) has a part in it, and where there is no history there are no scores.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from drafting.beam.rule import STRICT
from drafting.prompts.builder import PromptBuilder
from server.catalogs.served import ServedCatalog, found_items, known_items
from server.errors import UnknownItem, encodable
from server.lists.asking import Asking
from server.lists.lines import note_lines, precision_lines, timing_lines, usage_lines
from server.lists.users import KnownUser, check_given, none_known, told_unknown, user_notes
from server.messages import FinishedList
from server.metrics.ids import new_id
from server.schemas.scores import ScoreRequest
from server.services import Services
from server.submit import ScoreChoice, Submit
from verification.scored import Scored


class ScoreService:
    """Answers requests for scores."""

    def __init__(self, services: Services) -> None:
        self._settings = services.settings
        # Worked out once, as it may look at the disk.
        self._model_name = services.settings.model_name
        self._asking = Asking(services)
        self._catalogs = services.catalogs
        self._prompts = services.prompts
        self._drain = services.drain
        self._health = services.metrics.health

    async def score(self, body: ScoreRequest) -> dict[str, Any]:
        """The answer to a request, as `schemas.ScoreAnswer` describes it.

        Raises:
            ServerError: as each kind of it says.
            TimeoutError: the request's timeout passed while the engine had it.
        """
        started = time.monotonic()
        with self._drain.request(), self._catalogs.lease() as served:
            if body.strict_ids:
                known_items(served.catalog, body.items, "items")
                check_given(body, served.catalog)
            items, missing = found_items(served.catalog, body.items)
            if len(missing) == len(items):
                raise UnknownItem(none_known({"items": missing}))
            indices = np.array([item for item in items if item >= 0], np.int64)
            scored = Scored.of(served.catalog.trie, indices)
            submit = self._submit(body, served, scored, indices.astype(np.int32).tobytes(), started)
            with self._asking.admitted(body, submit) as request:
                builder = await self._prompts.builder(served, submit.deadline)
                user = await self._asking.read_user(body, served, submit, builder)
                self._asking.write_prompt(user, submit, builder)
                finished = await self._asking.answer(request)
            self._health.observe_scores(len(indices))
            assert finished.result.scores is not None
            scores = np.frombuffer(finished.result.scores, np.float32)
            names = [item_id for item_id, item in zip(body.items, items, strict=True) if item >= 0]
            lines: list[dict[str, Any]] = [
                {"item_id": encodable(name), "score": score, "rank": rank}
                for name, score, rank in zip(names, scores.tolist(), scored.ranks(scores).tolist(), strict=True)
            ]
            answer = self._answer(served, finished, lines, timing_lines(finished, started, submit.submitted))
            return answer | note_lines(_notes(body, user, builder, missing))

    def _submit(self, body: ScoreRequest, served: ServedCatalog, scored: Scored, items: bytes, started: float) -> Submit:
        return Submit(
            request_id=f"scores-{new_id()}",
            history=[],
            k=1,
            beam_width=1,
            excluded=[],
            deadline=started + (body.timeout_ms or self._settings.timeout_ms) / 1000,
            submitted=started,
            user=body.user_id,
            catalog=served.handle,
            scored=ScoreChoice(items, scored.prefixes),
            normalise=body.normalise,
        )

    def _answer(
        self, served: ServedCatalog, finished: FinishedList, lines: list[dict[str, Any]], timing: dict[str, float]
    ) -> dict[str, Any]:
        return {
            "id": finished.result.request_id,
            "model": self._model_name,
            "catalog_version": served.name,
            **precision_lines(self._asking.ready.precision, STRICT),
            "items": lines,
            "usage": usage_lines(finished.result.usage),
            "timing_ms": timing,
        }


def _notes(body: ScoreRequest, user: KnownUser, builder: PromptBuilder, missing: Sequence[str]) -> Iterator[str]:
    yield from user_notes(body, user, builder.reads, builder.most_items(thinks=False))
    if missing:
        yield from told_unknown({"items": missing})
