"""Many users' recommendations in one HTTP request.

Invariant: every entry gets what it would have got alone, its list or its problem, at its place; none that goes wrong harms another.
Entries begin one by one, with a turn of the event loop between two, so that a batch does not keep other clients waiting.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from server.http.problems import FORESEEN, Problem, invalid, problem_of
from server.lists.service import RecommendationService
from server.schemas.recommendations import RecommendationRequest


async def recommend_batch(service: RecommendationService, entries: Sequence[Any]) -> dict[str, Any]:
    """The answer to a batch, as `schemas.BatchAnswer` describes it."""
    async with asyncio.TaskGroup() as group:
        tasks = []
        for entry in entries:
            tasks.append(group.create_task(_recommend(service, entry)))
            await asyncio.sleep(0)
    results = [task.result() for task in tasks]
    failed = sum(result["status"] != 200 for result in results)
    return {"results": results, "succeeded": len(results) - failed, "failed": failed}


async def _recommend(service: RecommendationService, entry: Any) -> dict[str, Any]:
    try:
        body = RecommendationRequest.model_validate(entry)
        return {"status": 200, "recommendation": await service.recommend(body)}
    except ValidationError as error:
        return _problem(problem_of(invalid(error, "entry")))
    except FORESEEN as error:
        return _problem(problem_of(error))


def _problem(told: Problem) -> dict[str, Any]:
    retry = {} if told.retry_after_seconds is None else {"retry_after_seconds": told.retry_after_seconds}
    return {"status": told.status, "problem": told.members() | retry}
