"""Proof of a version: the engine answers a few lists with it before anybody else is given one.

Invariant: a version that passes gives lists of as many identifiers as were asked for, best first, and every item of a list has the
identifier that the list gives it in the catalog.
"""

import asyncio
import math
import time
import uuid
from collections import defaultdict

from drafting.catalog.catalog import Catalog
from server.engine.client import EngineClient
from server.errors import CatalogRefused, RequestRefused, ScoresNotFinite
from server.submit import Submit
from server.try_again import EngineUnavailable, Overloaded
from verification.result import BeamResult

PROOF_SECONDS = 60.0
_ITEMS = 10
_PAUSE_SECONDS = 0.2


async def prove(engine: EngineClient, handle: str, catalog: Catalog) -> None:
    """Ask for lists after a few items of the catalog, which the engine calls `handle`.

    Raises:
        CatalogRefused: a list is not right, or the engine can't make it.
        EngineUnavailable: the engine died, or has no time.
    """
    wanted = min(_ITEMS, catalog.identifiers)
    try:
        async with asyncio.timeout(PROOF_SECONDS):
            for item in sorted({0, len(catalog) // 2, len(catalog) - 1}):
                try:
                    result = await ask(engine, handle, item, wanted)
                except RequestRefused:
                    # A plan may be for narrow lists.
                    wanted = 1
                    result = await ask(engine, handle, item, wanted)
                if not is_list_of(result, catalog, wanted):
                    raise CatalogRefused("The engine makes no valid list with this version.")
    except (RequestRefused, ScoresNotFinite) as error:
        raise CatalogRefused(f"The engine makes no list with this version: {error}") from error
    except TimeoutError as error:
        raise EngineUnavailable("The engine had no time to try the version: try again.") from error


async def ask(engine: EngineClient, handle: str, item: int, wanted: int) -> BeamResult:
    """Ask for a list of `wanted` identifiers after one item, as soon as there is room for it.

    Raises:
        ScoresNotFinite, RequestRefused: the engine can't make it.
        EngineUnavailable, TimeoutError: the engine died, or has no time.
    """
    while True:
        now = time.monotonic()
        submit = Submit(f"proof-{uuid.uuid4().hex}", [item], wanted, wanted, [], now + PROOF_SECONDS, now, catalog=handle, is_proof=True)
        try:
            with engine.admit(submit, 1) as request:
                return (await engine.search(request)).result
        except Overloaded:
            await asyncio.sleep(_PAUSE_SECONDS)


def is_list_of(result: BeamResult, catalog: Catalog, wanted: int) -> bool:
    """True if a list of `wanted` identifiers is one of a catalog."""
    identifiers = defaultdict(set)
    for item in result.items:
        if not 0 <= item.item < len(catalog):
            return False
        identifiers[item.rank].add(catalog.identifier(item.item))
    scores = [item.score for item in result.items]
    ordered = all(map(math.isfinite, scores)) and scores == sorted(scores, reverse=True)
    distinct = set().union(*identifiers.values())
    return ordered and len(identifiers) == len(distinct) == wanted and all(len(each) == 1 for each in identifiers.values())
