"""The operator of a soak: brings versions, serves and removes them, rolls back, posts items, names filters.

Invariant: one change at a time, and the next begins only when it is known what has become of the last: so the ledger of versions is exact.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from benchmarks.soak.answers import Answers, Promise
from benchmarks.soak.catalog_lines import GROUPS, CatalogLines, group_of
from benchmarks.soak.client import Answer, SoakClient
from benchmarks.soak.disk import SmallDisk
from benchmarks.soak.version_ledger import Items, OpenChange, VersionLedger

# Uploaded versions that are kept at a time; each is a whole catalog.
MOST_UPLOADED = 5
ITEMS_OF_A_POST = 3
PAGE = 1000
_BY = {"by": "soak"}
_SHOW = "/v1/catalogs"


class Operator:
    """Changes what is served until it is told to stop."""

    def __init__(
        self, client: SoakClient, answers: Answers, ledger: VersionLedger, lines: CatalogLines, disk: SmallDisk, seed: int
    ) -> None:
        self._disk = disk
        self._client, self._answers, self._ledger, self._lines = client, answers, ledger, lines
        self._random = Random(seed)
        self._uploads, self._posted = itertools.count(1), itertools.count(1)
        self._changes: dict[Callable[[], Awaitable[None]], int] = {
            self._post_items: 4,
            self._upload: 2,
            self._activate: 3,
            self._roll_back: 1,
            self._remove: 1,
            self._show: 1,
        }

    async def name_filters(self) -> None:
        """Name a filter for each group; filters end with the process that they were given to."""
        self._ledger.filters.clear()
        for group in range(GROUPS):
            await self._name_filter(group)

    async def run(self, pause_seconds: float, stop: asyncio.Event) -> None:
        """Change something every now and then until `stop` is set; while the disk is full, one thing after the other."""
        while not stop.is_set():
            if self._ledger.open is not None:
                await self._settle()
            else:
                await self._look()
                (change,) = self._random.choices([*self._changes], [*self._changes.values()])
                await change()
                if len(self._ledger.filters) < GROUPS:
                    await self._name_filter(next(group for group in range(GROUPS) if f"group-{group}" not in self._ledger.filters))
            await asyncio.sleep(0.1 if self._disk.full else pause_seconds)

    async def prove(self) -> None:
        """Compare versions, activations, filters and the served items with the ledger; each difference is a broken promise."""
        if self._ledger.open is not None:
            await self._settle()
        await self._look()
        await self._prove_items()
        await self._prove_filters()

    async def prove_all(self) -> None:
        """Serve every version once and compare its items."""
        await self.prove()
        for name in list(self._ledger.versions):
            answer = await self._serve(name)
            if answer is None or not answer.ok:
                self._lost(f"The acknowledged version {name} can't be served.")
            await self._prove_items()
            await self._prove_filters()

    async def _upload(self) -> None:
        number = next(self._uploads)
        name, indices = f"version-{number}", self._lines.variant(number)
        items: Items = frozenset(self._lines.names[index] for index in indices)
        self._ledger.open = OpenChange(name, brings=items)
        body = self._lines.body(indices)
        answer = await self._client.ask(
            "PUT", f"{_SHOW}/{name}", body, operation="PUT /v1/catalogs/{version}", content_type="application/x-ndjson"
        )
        if self._has_happened(answer):
            self._ledger.add_version(name, items)

    async def _post_items(self) -> None:
        names = [f"new-{next(self._posted)}" for _ in range(ITEMS_OF_A_POST)]
        identifiers = [self._lines.identifier(self._random.randrange(len(self._lines.names))) for _ in names]
        items = [
            {"item_id": name, "identifier": identifier, "attributes": {"group": group_of(name)}}
            for name, identifier in zip(names, identifiers, strict=True)
        ]
        self._ledger.open = OpenChange(None, brings=self._ledger.versions[self._ledger.active] | frozenset(names), activates=True)
        answer = await self._ask("POST", "/v1/catalog/items", {"items": items, "on_collision": "shared", **_BY})
        if self._has_happened(answer) and answer is not None:
            self._ledger.add_items(answer.body, names)
            await self._prove_items()

    async def _activate(self) -> None:
        await self._serve(self._random.choice(list(self._ledger.versions)))

    async def _serve(self, name: str) -> Answer | None:
        self._ledger.open = OpenChange(name, activates=True)
        answer = await self._ask("POST", f"{_SHOW}/{name}/activate", _BY, "POST /v1/catalogs/{version}/activate")
        if self._has_happened(answer) and answer is not None:
            self._ledger.activate(answer.body)
        return answer

    async def _roll_back(self) -> None:
        self._ledger.open = OpenChange(None, activates=True)
        answer = await self._ask("POST", f"{_SHOW}/rollback", _BY)
        if self._has_happened(answer) and answer is not None:
            if answer.body["version"] not in {*self._ledger.versions, *self._ledger.superfluous}:
                self._lost(f"The rollback went to {answer.body['version']}, which is no version.")
            else:
                self._ledger.activate(answer.body)

    async def _remove(self) -> None:
        uploaded = [name for name in self._ledger.versions if name.count("-") == 1 and name != self._ledger.active]
        if len(uploaded) < MOST_UPLOADED:
            return
        name = uploaded[0]
        self._ledger.open = OpenChange(name, removes=True)
        answer = await self._ask("DELETE", f"{_SHOW}/{name}", operation="DELETE /v1/catalogs/{version}")
        if self._has_happened(answer):
            self._ledger.remove(name)

    async def _show(self) -> None:
        for path in ("/health", "/ready", "/version", "/v1/catalog", "/v1/catalog/filters", "/metrics"):
            await self._ask("GET", path)

    async def _look(self) -> None:
        """Compare what the server shows of its versions with the ledger."""
        shown = await self._ask("GET", _SHOW)
        if shown is not None and shown.ok:
            self._lost(self._ledger.complaint(shown.body))

    async def _settle(self) -> None:
        """Find out what has become of the change that got no answer."""
        shown = await self._ask("GET", _SHOW)
        if shown is not None and shown.ok:
            self._lost(self._ledger.settle(shown.body))

    async def _name_filter(self, group: int) -> None:
        name, expression = f"group-{group}", f"group = {group}"
        answer = await self._ask("PUT", f"/v1/catalog/filters/{name}", {"expression": expression}, "PUT /v1/catalog/filters/{name}")
        if answer is not None and answer.ok:
            self._ledger.filters[name] = expression

    async def _prove_items(self) -> None:
        """Read the whole catalog that is served."""
        wanted, found = self._ledger.versions[self._ledger.active], set[str]()
        while True:
            answer = await self._ask("GET", f"/v1/catalog/items?limit={PAGE}&offset={len(found)}", operation="GET /v1/catalog/items")
            if answer is None or not answer.ok:
                return
            page = [line["item_id"] for line in answer.body["items"]]
            if not page:
                break
            found.update(page)
        if lost := wanted - found:
            self._lost(f"Version {self._ledger.active} lacks {len(lost)} of its items, such as {min(lost)}.")
        if strange := found - wanted:
            self._answers.complain(
                Promise.NOTHING_INVENTED,
                f"Version {self._ledger.active} has {len(strange)} items that nobody gave it, such as {min(strange)}.",
            )

    async def _prove_filters(self) -> None:
        for name, expression in self._ledger.filters.items():
            answer = await self._ask("GET", f"/v1/catalog/filters/{name}", operation="GET /v1/catalog/filters/{name}")
            if answer is None:
                continue
            passing = self._ledger.passing(expression)
            if not answer.ok or answer.body.get("expression") != expression:
                self._lost(f"The filter {name} is lost.")
            elif answer.body["items"] != passing:
                self._lost(f"The filter {name} lets {answer.body['items']} items through, not {passing}.")

    def _has_happened(self, answer: Answer | None) -> bool:
        """True if the open change was acknowledged; one that was answered otherwise has not happened, one without an answer stays open."""
        if answer is not None:
            self._ledger.open = None
        return answer is not None and answer.ok

    def _lost(self, sentence: str | None) -> None:
        self._answers.complain(Promise.NOTHING_LOST, sentence)

    async def _ask(self, method: str, path: str, body: Mapping[str, object] | bytes = b"", operation: str | None = None) -> Answer | None:
        return await self._client.ask(method, path, body, operation=operation)
