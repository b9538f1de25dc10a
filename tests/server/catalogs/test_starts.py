"""Servers that are started with another catalog while others serve, as in a rolling upgrade: which begin, which wait, who stays ready."""

from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import Catalog
from drafting.catalog.text_column import TextColumn
from server.catalogs.filters import NamedFilters
from server.control import ControlStore, Limits, Replica
from server.control.announcer import Announcer
from server.control.memory import MemoryControlStore
from server.engine.supervisor import EngineStatus
from server.errors import CatalogRefused, FilterRefused
from server.try_again import EngineUnavailable, ReplicaBehind
from tests.server.catalogs.shop import ONE, START, Shop, moved, opened, put_into, take_any_catalog

APART = r"start all of them with --catalogs, a directory that all see or an object store, or end the others first\.$"


@pytest.fixture(autouse=True)
def willing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_catalog(monkeypatch)


@pytest.fixture
def control() -> ControlStore:
    return MemoryControlStore(Limits())


SAME_MODEL, OTHER_MODEL = moved(len(START) // 4), moved(len(START))


async def follow(shop: Shop) -> None:
    async with shop.catalogs.changing:
        await shop.catalogs.follower.catch_up()


async def serve(control: ControlStore, shop: Shop) -> None:
    """Have an engine, and say so to the others."""
    shop.engine.supervisor.status = EngineStatus.READY
    await follow(shop)
    await control.announce(ready(shop))


def ready(shop: Shop) -> Replica:
    return Announcer(shop.catalogs.follower, lambda: shop.catalogs.active.name, lambda: None).replica()


async def assert_serves(shop: Shop, catalog: Catalog, name: str | None = None) -> None:
    """Assert that a server serves a catalog, and is to, under a name that by default is its version."""
    await follow(shop)
    shop.catalogs.follower.check()
    assert shop.catalogs.active.catalog.version == catalog.version
    assert shop.catalogs.active.name == shop.catalogs.record.active == (name or catalog.version)


@pytest.mark.parametrize("later", [SAME_MODEL, OTHER_MODEL])
async def test_a_new_catalog_in_an_image_waits_until_the_servers_that_could_not_read_it_have_ended(
    tmp_path: Path, control: ControlStore, later: Catalog
) -> None:
    """Each has the file at the same path, in an image of its own."""
    image = tmp_path / "image.catalog"
    pod = partial(opened, tmp_path, control, image=image, is_private=True)
    async with pod("old") as old, pod("another") as another:
        await serve(control, old)
        await serve(control, another)
        with pytest.raises(
            CatalogRefused, match=f"^Other servers serve version '{START.version}', and could not read .* this one: {APART}"
        ):
            async with pod("new", later):
                pass
        put_into(image, START)
        for shop in (old, another):
            await assert_serves(shop, START)
            assert later.version not in shop.catalogs.record.versions
        with pytest.raises(CatalogRefused, match=r"^Other servers could not read its file: start all of them with --catalogs"):
            await old.add("v1", ONE)
        for name in ("old", "another"):
            await control.withdraw(name)
        async with pod("new", later) as new:
            assert new.catalogs.own is None
            await assert_serves(new, later)


@pytest.mark.parametrize("is_image", [True, False])
async def test_a_server_with_the_catalog_of_before_waits_until_those_with_the_new_one_have_ended(
    tmp_path: Path, control: ControlStore, is_image: bool
) -> None:
    """As after `helm rollback`: its catalog is not new. What the others serve is not at that path in its image, or it is, in a volume."""
    pod: partial[AbstractAsyncContextManager[Shop]] = partial(opened, tmp_path, control, is_private=True)
    image = tmp_path / "image.catalog" if is_image else None
    async with pod("old", image=image):
        pass
    async with pod("new", SAME_MODEL, image) as new:
        await serve(control, new)
        with pytest.raises(
            CatalogRefused, match=f"^Other servers serve version '{SAME_MODEL.version}', and could not read .* this one: {APART}"
        ):
            async with pod("back", image=image):
                pass
        if image is not None:
            put_into(image, SAME_MODEL)
        await assert_serves(new, SAME_MODEL)
        # Those of its own release come and go.
        async with pod("next", SAME_MODEL, image) as another:
            await assert_serves(another, SAME_MODEL)
    await control.withdraw("new")
    async with pod("back", image=image) as back:
        await assert_serves(back, START)


async def test_what_a_catalog_was_overwritten_with_is_not_begun_beside_servers_of_the_one_before(
    tmp_path: Path, control: ControlStore
) -> None:
    """Whether it is for their model can't be told any more, and they would follow."""
    image = tmp_path / "image.catalog"
    async with opened(tmp_path, control, "old", image=image) as old:
        await serve(control, old)
        sentence = r"can't read\. The file of version .* has changed: .* This server begins when it can, or when they have ended\.$"
        with pytest.raises(CatalogRefused, match=sentence):
            async with opened(tmp_path, control, "new", OTHER_MODEL, image):
                pass
        await assert_serves(old, START)


async def test_a_server_for_another_model_does_not_begin_beside_others(tmp_path: Path, control: ControlStore) -> None:
    """All of its items have other identifiers, which the others' model has never learnt."""
    async with opened(tmp_path, control, "old") as old:
        await serve(control, old)
        with pytest.raises(CatalogRefused, match=r"has other identifiers for 20 of the 20 items .*--control-prefix"):
            async with opened(tmp_path, control, "new", OTHER_MODEL):
                pass
        await assert_serves(old, START)
        assert OTHER_MODEL.version not in old.catalogs.record.versions
    await control.withdraw("old")
    async with opened(tmp_path, control, "new", OTHER_MODEL) as new:
        await assert_serves(new, OTHER_MODEL)
        await serve(control, new)
        # Nor one that was served before: after `helm rollback` its model would serve the new identifiers.
        with pytest.raises(CatalogRefused, match=r"has other identifiers for 20 of the 20 items .*--control-prefix"):
            async with opened(tmp_path, control, "back"):
                pass


async def test_a_server_begins_beside_others_of_its_release_whatever_these_have_activated(tmp_path: Path, control: ControlStore) -> None:
    async with opened(tmp_path, control, "old") as old:
        await serve(control, old)
        await old.add("v1", OTHER_MODEL)
        await old.activate("v1")
        async with opened(tmp_path, control, "again") as again:
            await assert_serves(again, OTHER_MODEL, "v1")


async def test_a_catalog_in_an_image_is_found_by_later_releases_once_there_is_a_place_for_it(tmp_path: Path, control: ControlStore) -> None:
    """The same image with `--catalogs`, and then one with another catalog at its path."""
    image = tmp_path / "image.catalog"
    async with opened(tmp_path, control, "first", image=image, is_private=True) as first:
        await serve(control, first)
        async with opened(tmp_path, control, "placed", image=image, is_shared=True) as placed:
            await serve(control, placed)
            for shop in (placed, first):
                await assert_serves(shop, START)
            await control.withdraw("first")
            async with opened(tmp_path, control, "new", SAME_MODEL, image, is_shared=True) as new:
                await serve(control, new)
                for shop in (new, placed):
                    await assert_serves(shop, SAME_MODEL)
                await new.activate(START.version)
                await assert_serves(new, START)


async def test_a_later_catalog_of_the_same_model_takes_the_others_along_once_an_engine_has_loaded_it(
    tmp_path: Path, control: ControlStore
) -> None:
    """One that no engine loads must not take those from their work that serve. Twins may have changed places."""
    async with opened(tmp_path, control, "old") as old:
        await serve(control, old)
        async with opened(tmp_path, control, "new", SAME_MODEL) as new:
            for shop, serves in ((new, SAME_MODEL), (old, START)):
                await follow(shop)
                assert (shop.catalogs.active.name, shop.catalogs.record.active) == (serves.version, START.version)
            with pytest.raises(EngineUnavailable, match="about to be served by all"):
                new.catalogs.check_brought()
            await serve(control, new)
            new.catalogs.check_brought()
            for shop in (new, old):
                await assert_serves(shop, SAME_MODEL)
        # It is not new any more.
        async with opened(tmp_path, control, "next", SAME_MODEL) as later:
            await assert_serves(later, SAME_MODEL)


async def test_a_later_catalog_replaces_nothing_that_others_have_activated_while_its_engine_loaded(
    tmp_path: Path, control: ControlStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, control, "old") as old:
        await serve(control, old)
        async with opened(tmp_path, control, "new", SAME_MODEL) as new:
            await old.add("v1", v1 := moved(2))
            await old.activate("v1")
            await serve(control, new)
            for shop in (new, old):
                await assert_serves(shop, v1, "v1")
            new.catalogs.check_brought()
            assert f"others have moved on to version v1, and this server follows: it had {SAME_MODEL.version}" in caplog.messages
        # Days later a server of that release is started again: its catalog is not new.
        async with opened(tmp_path, control, "again", SAME_MODEL) as again:
            await serve(control, again)
            for shop in (again, old):
                await assert_serves(shop, v1, "v1")
        # Somebody may want it all the same.
        await old.activate(SAME_MODEL.version)
        await assert_serves(old, SAME_MODEL)


async def test_a_later_catalog_is_brought_no_more_where_its_own_server_was_told_of_another(tmp_path: Path, control: ControlStore) -> None:
    async with opened(tmp_path, control, "old") as old:
        await serve(control, old)
        async with opened(tmp_path, control, "new", SAME_MODEL) as new:
            await new.activate(START.version)
            await serve(control, new)
        async with opened(tmp_path, control, "again", SAME_MODEL) as again:
            for shop in (again, old):
                await assert_serves(shop, START)


async def test_a_later_catalog_for_which_a_filter_fails_that_was_put_while_its_engine_loaded_is_not_brought_to_others(
    tmp_path: Path, control: ControlStore
) -> None:
    """All would be behind what is to be served, and none could take the filter back."""
    brands = AttributeColumn(np.zeros(len(START), np.int32), TextColumn.of(['"ours"']))
    branded = Catalog.of(START.item_ids, START.tokens, START.codes, {"brand": brands})
    async with opened(tmp_path, control, "old", branded) as old:
        await serve(control, old)
        async with opened(tmp_path, control, "new", SAME_MODEL) as new:
            await old.filters.put("mine", 'brand = "ours"')
            new.engine.supervisor.status = EngineStatus.READY
            with pytest.raises(ReplicaBehind, match=f"The filter 'mine' can't be used with version '{SAME_MODEL.version}'"):
                await follow(new)
            await assert_serves(old, branded)
            await old.filters.drop("mine")
            for shop in (new, old):
                await assert_serves(shop, SAME_MODEL)


async def test_a_server_whose_filters_fit_no_version_does_not_begin(
    tmp_path: Path, control: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> NoReturn:
        raise FilterRefused("There is no attribute 'size'.")

    monkeypatch.setattr(NamedFilters, "prepare", refuse)
    sentence = rf"^No version can be served with the named filters, not even '{START.version}': see the log\.$"
    with pytest.raises(FilterRefused, match=sentence):
        async with opened(tmp_path, control):
            pass
