"""Proof of a version: which lists are of a catalog, and what becomes of a version for which the engine makes none."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, cast

import pytest

from server.catalogs import proof
from server.catalogs.proof import is_list_of
from server.engine.client import EngineClient
from server.errors import CatalogRefused
from server.try_again import EngineUnavailable, QueueFull
from tests.server.catalogs.shop import ONE, START, started
from verification.result import BeamResult, RankedItem, Usage

WANTED = 3


def right() -> list[RankedItem]:
    leaves = range(ONE.trie.level_starts[-2], ONE.trie.level_starts[-2] + WANTED)
    return [RankedItem(item, -float(rank), rank) for rank, leaf in enumerate(leaves, 1) for item in ONE.trie.items_of(leaf).tolist()]


def passes(items: list[RankedItem]) -> bool:
    return is_list_of(BeamResult("a", tuple(items), Usage(1, 0, 1)), ONE, WANTED)


def test_a_list_of_the_catalog_passes():
    assert passes(right())


@pytest.mark.parametrize(
    "last",
    [
        RankedItem(len(ONE), -9.0, WANTED),
        RankedItem(-1, -9.0, WANTED),
        RankedItem(right()[0].item, -9.0, WANTED),
        RankedItem(right()[-1].item, -9.0, 1),
        RankedItem(right()[-1].item, 0.0, WANTED),
        RankedItem(right()[-1].item, float("nan"), WANTED),
        RankedItem(right()[-1].item, float("-inf"), WANTED),
    ],
    ids=["beyond", "negative", "twice", "of another identifier", "out of order", "not a number", "infinite"],
)
def test_a_list_that_lies_does_not_pass(last: RankedItem):
    assert not passes([*right()[:-1], last])


def test_a_list_that_is_too_short_does_not_pass():
    assert not passes([item for item in right() if item.rank < WANTED])


@pytest.mark.parametrize(
    ("behaviour", "sentence"), [("invents", "makes no valid list"), ("not finite", "makes no list with this version: .* not finite")]
)
async def test_a_version_without_right_lists_is_refused_and_another_stays(
    behaviour: str, sentence: str, tmp_path: Path, run_as_engine: Callable[[str], None]
):
    run_as_engine("tests.server.catalogs.catalog_worker")
    async with started(tmp_path, {"ONE": behaviour}) as shop:
        await shop.ready()
        await shop.add("one", ONE)
        with pytest.raises(CatalogRefused, match=sentence):
            await shop.activate("one")
        assert shop.catalogs.active.name == START.version


async def test_a_version_that_the_engine_has_no_time_to_try_is_not_refused_for_good(monkeypatch: pytest.MonkeyPatch):
    class Full:
        def admit(self, *_: object) -> NoReturn:
            raise QueueFull("Others wait.")

    monkeypatch.setattr(proof, "PROOF_SECONDS", 0.0)
    with pytest.raises(EngineUnavailable, match=r"^The engine had no time to try the version: try again\.$"):
        await proof.prove(cast(EngineClient, Full()), "one", ONE)
