"""`atspeed histories`: what is stored of users, in bulk."""

import asyncio
import time as clock
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from server.commands.interaction_options import InteractionOptions, interaction_options
from server.commands.options import default, setting, takes
from server.commands.terminal import fail, failing_on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drafting.alignment.data.columns import Column
    from drafting.preparation.events import Events
    from drafting.prompts.user_state import Value

_T = TypeVar("_T")

_STORE_SECONDS = 30.0

histories_app = typer.Typer(help="What is stored of users, in bulk: load it, and limit how long it is kept.", no_args_is_help=True)


@histories_app.command("import")
@takes(interaction_options)
def import_histories(
    settings: InteractionOptions,
    source: Annotated[
        Path,
        typer.Argument(
            help="A directory as --data of `atspeed train target`, interactions in any form that `atspeed prepare` reads, or LC-Rec's "
            ".inter.json.",
            exists=True,
        ),
    ],
    histories: Annotated[str, setting("histories", envvar="ATSPEED_HISTORIES")] = default("histories"),
    profiles: Annotated[
        Path | None,
        typer.Option(help="profiles.jsonl or .parquet of users.", exists=True, dir_okay=False, show_default="those of a data directory"),
    ] = None,
    event_id: Annotated[
        str | None,
        typer.Option(
            help="Column of the interactions with ids of events that clients send too.", show_default="made of item, time and kind"
        ),
    ] = None,
    history_max_events: Annotated[int, setting("history_max_events", envvar="ATSPEED_HISTORY_MAX_EVENTS", min=1)] = default(
        "history_max_events"
    ),
    history_ttl_seconds: Annotated[int | None, setting("history_ttl_seconds", envvar="ATSPEED_HISTORY_TTL_SECONDS", min=1)] = None,
) -> None:
    """Load histories, and profiles, into SQLite or Redis (one, Sentinel, Cluster): of each user the newest events that the store keeps.

    It can be repeated and goes on after an interruption: an event is stored once. Load before the server takes events, and with its
    --history-max-events and --history-ttl-seconds, or in its environment: of a full history, those go that arrived first, and what is
    loaded arrives now; and users who are loaded without a time to live are kept for ever, those too who had one.

    Examples:

    atspeed histories import data/mine --histories redis://localhost:6379/0

    atspeed histories import events.parquet --user customer --item sku --histories sqlite:///histories.db
    """
    if histories.startswith("memory:"):
        fail("memory:// ends with this command, so nothing would be left: name sqlite:///path or a Redis.")
    from drafting.errors import SetupError

    with failing_on(SetupError):
        events, ids = _read(source, settings, event_id)
        known = _profiles(source, profiles)
        _load(histories, events, ids, known, history_max_events, history_ttl_seconds)


@histories_app.command("expire")
def expire_histories(
    history_ttl_seconds: Annotated[int, typer.Option(min=1, help="Forget users so many seconds from now, if nothing is written before.")],
    histories: Annotated[str, setting("histories", envvar="ATSPEED_HISTORIES")] = default("histories"),
) -> None:
    """Limit how long users are kept who were stored without a time to live, or with a longer one.

    --history-ttl-seconds of a server reaches users at their next event or profile alone; this reaches the others. Servers go on meanwhile;
    a Redis that is full takes it, too. It can be repeated. What a disk has damaged of a SQLite file is passed over, and counted at the end.

    Example:

    atspeed histories expire --histories redis://localhost:6379/0 --history-ttl-seconds 2592000
    """
    if histories.startswith("memory:"):
        fail("memory:// ends with this command, so there is nobody to forget: name sqlite:///path or a Redis.")
    from tqdm import tqdm

    from server.histories import check_there, open_history_store

    passed: list[int] = []

    async def limit() -> int:
        check_there(histories)
        store = open_history_store(histories, ttl_seconds=history_ttl_seconds, timeout_seconds=_STORE_SECONDS)
        try:
            with tqdm(desc="limiting", unit="user", unit_scale=True) as bar:
                return await store.limit_lives(bar.update, passed.append)
        finally:
            await store.close()

    limited = _finished(limit(), "Give the same command again to go on.")
    typer.echo(f"{limited:,} users who would have been kept longer are forgotten in {history_ttl_seconds:,} s.")
    if sum(passed):
        fail(f"{sum(passed):,} users stay as they are, as pages of theirs or beside them are damaged: the same command may reach more.")


def _read(source: Path, options: InteractionOptions, event_id: str | None) -> "tuple[Events, Column | None]":
    """The interactions, and the ids that they have already."""
    try:
        from drafting.preparation.events import attribute
        from drafting.preparation.run import layout_of, read_events
        from drafting.preparation.streams import read_stream, stream_columns, stream_files
    except ImportError as missing:
        fail(f"Importing histories needs the extra 'train' ({missing}): pip install 'atspeed-server[train]'.")
    from drafting.alignment.data.details import ATTRIBUTES

    def tell(sentence: str) -> None:
        typer.echo(sentence, err=True)

    kept = tuple(dict.fromkeys([*options.keep, *([event_id] if event_id else [])]))
    files = stream_files(source)
    known = stream_columns(files)
    attributes = [name for name in known if name.startswith(ATTRIBUTES)]
    more = [name for name in kept if name in known and name not in attributes]
    if files and not more and options.time_format is None and not any(options.columns.values()):
        events = read_stream(files, options.time_unit, tell)
        if unknown := next((name for name in kept if attribute(name) not in events.details), None):
            fail(f"The interactions of {source} have no attribute {unknown!r}: there are {', '.join(events.details) or 'none'}.")
    else:
        kept = tuple(dict.fromkeys([*kept, *attributes]))
        asked = options.preparation(files[0] if len(files) == 1 else source, source, keep=kept)
        events, _ = read_events(asked, layout_of(asked), tell, [event_id] if event_id else [])
    details = dict(events.details)
    ids = details.pop(attribute(event_id), None) if event_id else None
    from dataclasses import replace

    return replace(events, details=details), ids


def _profiles(source: Path, given: Path | None) -> "Mapping[str, Mapping[str, Value]]":
    """The profiles by user."""
    from drafting.alignment.data.loading import profile_file
    from drafting.alignment.data.profiles import load_profiles

    path = given or (profile_file(source) if source.is_dir() else None)
    return {} if path is None else load_profiles(path)


def _load(
    url: str, events: "Events", ids: "Column | None", profiles: "Mapping[str, Mapping[str, Value]]", most: int, ttl: int | None
) -> None:
    from tqdm import tqdm

    from server.histories import open_history_store
    from server.offline.bulk_checks import check_events, check_profiles
    from server.offline.bulk_load import Imported, histories_of, load_histories, load_profiles

    check_events(events, ids)
    check_profiles(profiles)
    sent = int(sum(min(most, count) for count in _lengths(events)))
    begun = clock.monotonic()

    async def load() -> tuple[Imported, tuple[int, tuple[str, ...]]]:
        store = open_history_store(url, max_events=most, ttl_seconds=ttl, timeout_seconds=_STORE_SECONDS)
        try:
            with tqdm(total=sent, desc="storing", unit="event", unit_scale=True) as bar:
                done = await load_histories(store, histories_of(events, most, ids), bar.update)
            with tqdm(total=len(profiles), desc="storing", unit="profile", disable=not profiles) as bar:
                return done, await load_profiles(store, profiles, bar.update)
        finally:
            await store.close()

    done, (stored_profiles, damaged) = _finished(load(), "What was sent before is stored: give the same command again to go on.")
    seconds = max(clock.monotonic() - begun, 1e-3)
    typer.echo(
        f"Sent {done.sent:,} events of {done.users:,} users in {seconds:.1f} s ({done.sent / seconds:,.0f} events/s): {done.stored:,} were "
        f"new{f', and {stored_profiles:,} profiles' if profiles else ''}."
    )
    if users := [*dict.fromkeys([*done.damaged, *damaged])]:
        fail(f"Of {len(users):,} users not all was stored, as what is stored of them is damaged: {', '.join(users[:5])}.")


def _finished(work: Coroutine[Any, Any, _T], again: str) -> _T:
    """What a work with a store comes to; the command ends where it does not, with the sentence `again` if the store is away."""
    from server.try_again import HistoryUnavailable

    try:
        return asyncio.run(work)
    except ValueError as error:
        fail(str(error))
    except HistoryUnavailable as error:
        fail(f"{error} {again}")
    except KeyboardInterrupt:
        fail("Interrupted: give the same command again to go on.", status=130)


def _lengths(events: "Events") -> list[int]:
    import numpy as np

    lengths: list[int] = np.bincount(events.users).tolist()
    return lengths
