"""The calls of the API for catalog, replicas and server, each written once: a function takes the arguments and makes the `Operation`.

Those for lists and users are in `server.client.lists` and `server.client.users`. Both clients have a method of the same name, arguments and
docstring for each function (`server.client.methods`), which returns what the operation's type says. What is sent is judged by the server
alone, whose sentence a `Refused` carries, so a client of another version refuses nothing that its server can do.

A change takes `everywhere`: True for an answer when all replicas have it, and not as soon as it is stored. If some have not in time it is
`Unavailable`, whose sentence names them, and stored all the same; so it is tried again only if the server has not begun.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.client.lists import Facts
from server.client.operation import LONG_PATIENCE_SECONDS, Operation, Repeat, nothing
from server.client.upload import OnBytes, Upload
from server.schemas.catalogs import (
    UPLOAD_FORMS,
    ActivationAnswer,
    CatalogAnswer,
    CatalogItemAnswer,
    CatalogItemsAnswer,
    CatalogsAnswer,
    FilterAnswer,
    FiltersAnswer,
    ItemsAdded,
    NewItemBody,
    VersionBuilt,
)
from server.schemas.comparisons import AlikeAnswer, FilterSample, VersionDifference
from server.schemas.control import ControlAnswer, ControlRestored
from server.schemas.status import StatusAnswer, VersionAnswer


def catalog() -> Operation[CatalogAnswer]:
    """The catalog that is recommended from."""
    return Operation("GET /v1/catalog", CatalogAnswer.model_validate_json)


def items(limit: int | None = None, offset: int | None = None, *, q: str | None = None) -> Operation[CatalogItemsAnswer]:
    """Up to 1,000 items of the catalog, in its order, behind the first `offset`.

    Args:
        q: only items whose id begins with this or whose title holds it; the best match comes first.
    """
    return Operation("GET /v1/catalog/items", CatalogItemsAnswer.model_validate_json, query={"q": q, "limit": limit, "offset": offset})


def item(item_id: str) -> Operation[CatalogItemAnswer]:
    """One item's identifier, title and attributes."""
    return Operation("GET /v1/catalog/items/{item_id}", CatalogItemAnswer.model_validate_json, names={"item_id": item_id})


def items_like(item_id: str, limit: int | None = None) -> Operation[AlikeAnswer]:
    """An item and those that share the beginning of its identifier, its neighbours in the trie."""
    return Operation("GET /v1/catalog/like/{item_id}", AlikeAnswer.model_validate_json, names={"item_id": item_id}, query={"limit": limit})


def add_items(
    new_items: Sequence[NewItemBody | Facts], *, on_collision: str | None = None, by: str | None = None, everywhere: bool = False
) -> Operation[ItemsAdded]:
    """Add up to 1,000 items to the catalog, all or none; they are served when the answer comes.

    It is tried again only if the server has not begun.

    Args:
        new_items: dictionaries with `item_id`, `embedding` or `identifier`, and what else is known, or models.
        on_collision: what becomes of an item whose identifier belongs to another: `nearest-free` (the default) or `shared`.
        by: a person or a job, for the history of versions.
        everywhere: True to wait for all replicas.
    """
    body = {"items": new_items} | _given(on_collision=on_collision, by=by)
    return Operation(
        "POST /v1/catalog/items",
        ItemsAdded.model_validate_json,
        Repeat.IF_NOT_BEGUN,
        query=_until(everywhere),
        body=lambda _: body,
        patience=LONG_PATIENCE_SECONDS,
    )


def put_filter(
    name: str, *, expression: str | None = None, items: Sequence[str] | None = None, everywhere: bool = False
) -> Operation[FilterAnswer]:
    """Give a filter a name: an expression over the items' attributes, or item ids; `everywhere` waits for all replicas."""
    return Operation(
        "PUT /v1/catalog/filters/{name}",
        FilterAnswer.model_validate_json,
        _repeat(everywhere),
        names={"name": name},
        query=_until(everywhere),
        body=lambda _: _given(expression=expression, items=items),
    )


def filter_sample(name: str, limit: int | None = None) -> Operation[FilterSample]:
    """How many items of the catalog that is served a named filter lets through, and some of them."""
    return Operation(
        "GET /v1/catalog/filters/{name}/sample", FilterSample.model_validate_json, names={"name": name}, query={"limit": limit}
    )


def filters() -> Operation[FiltersAnswer]:
    """All named filters."""
    return Operation("GET /v1/catalog/filters", FiltersAnswer.model_validate_json)


def filter(name: str) -> Operation[FilterAnswer]:
    """One named filter."""
    return Operation("GET /v1/catalog/filters/{name}", FilterAnswer.model_validate_json, names={"name": name})


def forget_filter(name: str, *, everywhere: bool = False) -> Operation[None]:
    """Forget a named filter; requests that run with it are not disturbed. `everywhere` waits for all replicas."""
    return Operation("DELETE /v1/catalog/filters/{name}", nothing, _repeat(everywhere), names={"name": name}, query=_until(everywhere))


def put_catalog(version: str, path: str, *, everywhere: bool = False) -> Operation[VersionBuilt]:
    """Make a version of a file in the server's directory of catalogs; it can be activated then.

    It is tried again only if the server has not begun, as `upload_catalog`. `everywhere` waits until all replicas know it.
    """
    return _bring(version, lambda _: {"path": path}, everywhere)


def upload_catalog(
    version: str, file: Path, *, content_type: str | None = None, on_bytes: OnBytes | None = None, everywhere: bool = False
) -> Operation[VersionBuilt]:
    """Send a catalog and make a version of it; it can be activated then.

    Args:
        file: JSONL, parquet, an index, MiniOneRec's item info or an artefact.
        content_type: form of the file; by default what its suffix says (`.jsonl`, `.parquet`, `.json`, `.tsv`, `.catalog`).
        on_bytes: takes the bytes sent so far and those of the file, after each piece; from the beginning when the upload is tried again.
        everywhere: True to wait until all replicas know it.

    Raises:
        ValueError: the file's suffix says no form.
    """
    of_suffix = {suffix: form for form, suffix in UPLOAD_FORMS.items()}
    form = content_type or of_suffix.get(file.suffix)
    if form is None:
        raise ValueError(f"{file.name} has none of the suffixes {', '.join(of_suffix)}: name its content_type.")
    return _bring(version, Upload(file, form, on_bytes), everywhere)


def catalogs() -> Operation[CatalogsAnswer]:
    """All versions of the catalog, and how they came to be served."""
    return Operation("GET /v1/catalogs", CatalogsAnswer.model_validate_json)


def difference(version: str, base: str | None = None, limit: int | None = None) -> Operation[VersionDifference]:
    """Which items a version of the catalog adds, removes and changes, in comparison with another or with the one that is served."""
    return Operation(
        "GET /v1/catalogs/{version}/difference",
        VersionDifference.model_validate_json,
        names={"version": version},
        query={"base": base, "limit": limit},
        patience=LONG_PATIENCE_SECONDS,
    )


def activate(version: str, by: str, *, everywhere: bool = False) -> Operation[ActivationAnswer]:
    """Serve a version from now on; `by` is a person or a job, for the history, and `everywhere` waits for all replicas.

    It is tried again only if the server has not begun.
    """
    return Operation(
        "POST /v1/catalogs/{version}/activate",
        ActivationAnswer.model_validate_json,
        Repeat.IF_NOT_BEGUN,
        names={"version": version},
        query=_until(everywhere),
        body=lambda _: {"by": by},
        patience=LONG_PATIENCE_SECONDS,
    )


def roll_back(by: str | None = None, served: str | None = None, *, everywhere: bool = False) -> Operation[ActivationAnswer]:
    """Serve the version before this one again. It is tried again only if the server has not begun: twice comes back to where it began.

    Args:
        served: the version that is to be left; refused as `Conflict` where another one is served by now.
        everywhere: True to wait for all replicas.
    """
    return Operation(
        "POST /v1/catalogs/rollback",
        ActivationAnswer.model_validate_json,
        Repeat.IF_NOT_BEGUN,
        query=_until(everywhere),
        body=lambda _: _given(by=by) | ({} if served is None else {"from": served}),
        patience=LONG_PATIENCE_SECONDS,
    )


def forget_catalog(version: str, *, everywhere: bool = False) -> Operation[None]:
    """Delete a version of the catalog that no replica serves; `everywhere` waits until none knows it."""
    return Operation("DELETE /v1/catalogs/{version}", nothing, _repeat(everywhere), names={"version": version}, query=_until(everywhere))


def control() -> Operation[ControlAnswer]:
    """How all replicas that live stand, and whether the control store answers."""
    return Operation("GET /v1/control", ControlAnswer.model_validate_json)


def back_up_control() -> Operation[bytes]:
    """The state that replicas agree on (versions, filters, what is served), as a file, from the memory of the one that answers."""
    return Operation("GET /v1/control/backup", bytes, patience=LONG_PATIENCE_SECONDS)


def restore_control(file: Path, *, on_bytes: OnBytes | None = None) -> Operation[ControlRestored]:
    """Put the state of a backup in place of the one that replicas agree on; all become what it says.

    It is tried again only if the server has not begun: what was written after the first time would be lost by the second.

    Args:
        file: what `back_up_control` has given.
        on_bytes: as that of `upload_catalog`.
    """
    upload = Upload(file, "application/octet-stream", on_bytes)
    return Operation(
        "PUT /v1/control/backup",
        ControlRestored.model_validate_json,
        Repeat.IF_NOT_BEGUN,
        body=upload,
        patience=LONG_PATIENCE_SECONDS,
    )


def health() -> Operation[StatusAnswer]:
    """Whether the server is alive; asked once, without retries."""
    return Operation("GET /health", StatusAnswer.model_validate_json, Repeat.NEVER)


def ready() -> Operation[StatusAnswer]:
    """Whether the server takes requests; asked once, without retries. `wait_until_ready` waits for it."""
    return Operation("GET /ready", StatusAnswer.model_validate_json, Repeat.NEVER)


def version() -> Operation[VersionAnswer]:
    """Versions of server, model and catalog."""
    return Operation("GET /version", VersionAnswer.model_validate_json)


def metrics() -> Operation[str]:
    """Metrics in Prometheus' text format."""
    return Operation("GET /metrics", bytes.decode)


def _bring(version: str, body: Any, everywhere: bool) -> Operation[VersionBuilt]:
    return Operation(
        "PUT /v1/catalogs/{version}",
        VersionBuilt.model_validate_json,
        Repeat.IF_NOT_BEGUN,
        names={"version": version},
        query=_until(everywhere),
        body=body,
        patience=LONG_PATIENCE_SECONDS,
    )


def _until(everywhere: bool) -> dict[str, float | str | None]:
    """The query of a change that all replicas are to have before it is answered."""
    return {"wait": "all" if everywhere else None}


def _repeat(everywhere: bool) -> Repeat:
    """When a change that may be done twice is sent again: not once some replicas lack it, for a second deletion finds nothing."""
    return Repeat.IF_NOT_BEGUN if everywhere else Repeat.ALWAYS


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
