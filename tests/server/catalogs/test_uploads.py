"""Versions that are brought together, each with a file that takes room until it is made."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.catalogs import uploads
from server.catalogs.files import UNFINISHED
from server.catalogs.uploads import CatalogUploads
from server.errors import UploadCutOff, VersionExists
from server.settings import Settings
from server.try_again import VersionsBusy
from tests.server.catalogs.shop import ONE, Shop, opened
from tests.waiting import until


def uploads_of(shop: Shop) -> CatalogUploads:
    return CatalogUploads(Settings(target=Path("x"), catalog=Path("y"), engine="transformers"), shop.catalogs)


async def test_more_than_are_brought_at_a_time_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_BROUGHT", 2)
    begun: list[str] = []
    gate = asyncio.Event()

    async def body(name: str) -> AsyncIterator[bytes]:
        begun.append(name)
        await gate.wait()
        yield b"{"

    async with opened(tmp_path) as shop:
        bringing = uploads_of(shop)

        async def bring(name: str) -> None:
            await bringing.from_upload(name, "application/x-ndjson", body(name), 2)

        first = [asyncio.create_task(bring(name)) for name in ("one", "two")]
        await until(lambda: len(begun) == 2)
        with pytest.raises(VersionsBusy, match="bringing 2 versions"):
            await bring("three")
        with pytest.raises(VersionsBusy):
            await bringing.from_path("three", "there.jsonl")
        assert begun == ["one", "two"]
        gate.set()
        ended = await asyncio.gather(*first, return_exceptions=True)
        assert [type(each) for each in ended] == [UploadCutOff] * 2
        with pytest.raises(UploadCutOff):
            await bring("three")
        assert not [path.name for path in shop.directory.iterdir() if path.name.startswith(UNFINISHED)]


async def test_no_file_is_looked_for_where_the_name_is_taken(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        await shop.add("one", ONE)
        with pytest.raises(VersionExists):
            await uploads_of(shop).from_path("one", "nowhere.jsonl")
