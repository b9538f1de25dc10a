"""What `atspeed catalog inspect` shows of a prompt: the tokens that a model gets for a user."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from server.commands.options import default
from server.commands.terminal import failing_on, print_table

if TYPE_CHECKING:
    from drafting.catalog.catalog import Catalog
    from server.offline.prompt import PromptToken


def show_prompt(
    catalog: "Catalog", target: Path, base: Path | None, user: str | None, history: Sequence[str], histories: str, as_json: bool
) -> None:
    """Print the prompt of a stored user, or of item ids, as a table or as JSON."""
    from drafting.errors import SetupError
    from drafting.prompts.user_state import UserState
    from server.catalogs.served import known_items
    from server.errors import UnknownItem
    from server.offline.prompt import prompt_tokens
    from server.offline.stored import StoredHistory
    from verification.hosts.served_model import ServedModel

    left_out = 0
    with failing_on(SetupError, UnknownItem):
        served = ServedModel(target, base=base)
        fitted = served.fit(catalog)
        if user is not None:
            stored = StoredHistory.read(histories, user, fitted.catalog, max_events=default("history_max_events"))
            state, left_out = stored.user.state, stored.left_out
        else:
            state = UserState.of_items(known_items(fitted.catalog, history, "history"))
        tokens = prompt_tokens(served, fitted, state)
    indices = [event.item for event in state.events]
    shown = len(fitted.prompts.window(indices))
    if as_json:
        facts = {
            "model": target.resolve().name,
            "catalog_version": catalog.version,
            "history": [catalog.item_ids[item] for item in indices],
            "left_out": left_out,
        }
        typer.echo(json.dumps(facts | {"items": shown, "tokens": msgspec.to_builtins(tokens)}, indent=2, ensure_ascii=False))
        return
    print_table(
        f"{target.resolve().name}: {len(tokens)} tokens",
        ("part", "position", "id", "token", "text"),
        list(map(_cells, tokens)),
        left=("part", "token", "text"),
    )
    typer.echo(
        f"Items of the history: {len(indices)}, of which the prompt has the newest {shown}; stored, but not in the catalog: {left_out}."
    )


def _cells(token: "PromptToken") -> list[str]:
    part = token.part if token.item_id is None else f"item {token.item_id}{f', {token.title}' if token.title else ''}"
    return [part, str(token.position), str(token.id), token.token, json.dumps(token.text, ensure_ascii=False)]
