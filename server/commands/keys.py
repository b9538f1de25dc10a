"""`atspeed keys`: make, list and remove the keys of a server."""

from pathlib import Path
from typing import Annotated

import typer

from server.commands.terminal import fail, failing_on, print_table
from server.keys.file import KeysFileError, add_key, parse, read_bytes, remove_key
from server.keys.key import Scope, is_name, is_rate

keys_app = typer.Typer(name="keys", help="Make, list and remove the keys of a server.", no_args_is_help=True)
KeysFile = Annotated[Path, typer.Argument(help="The file that `atspeed serve --keys` reads.", metavar="FILE")]
_NAME_FORM = "letters (a to z), digits, dots, dashes and underscores, at most 63 of them, with a letter or a digit first"


@keys_app.command()
def add(
    file: KeysFile,
    name: Annotated[str, typer.Option(help="Name of the key's holder, which metrics and messages have.")],
    scope: Annotated[list[Scope], typer.Option(help="What the key is good for; may be given several times.")],
    rate: Annotated[
        str | None,
        typer.Option(
            help="Most requests in a time, such as 100/second, of all replicas; a batch counts by its entries, scores count by hundreds of "
            "items; no bound by default."
        ),
    ] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Most requests at a time, of each replica; no bound by default.")] = None,
    max_k: Annotated[int | None, typer.Option(min=1, help="Largest k of a list; no bound by default.")] = None,
    max_width: Annotated[int | None, typer.Option(min=1, help="Largest beam_width of a list; no bound by default.")] = None,
    max_scored: Annotated[int | None, typer.Option(min=1, help="Most items of a request for scores; no bound by default.")] = None,
) -> None:
    """Make a key, print it, once, and put its digest into FILE, which is made if it is not there.

    A running server knows the key a second later. The scopes: recommend (lists, and reading the catalog), events (append events), users
    (read and delete what is stored of users), catalog (versions, items, filters), operate (the server itself).

    Example: atspeed keys add keys.json --name shop --scope recommend --scope events --rate 200/second
    """
    if not is_name(name):
        fail(f"The name of a key is made of {_NAME_FORM}; got {name!r}.")
    if rate is not None and not is_rate(rate):
        fail(f"A rate is a number in a second, minute, hour or day, such as 100/second; got {rate!r}.")
    with failing_on(KeysFileError):
        bounds = {"rate": rate, "concurrent": concurrent, "max_k": max_k, "max_width": max_width, "max_scored": max_scored}
        text = add_key(file, name, scope, **bounds)
    typer.echo(f"The key of {name!r}; it is not kept, so it can't be shown again:", err=True)
    typer.echo(text)


@keys_app.command("list")
def list_keys(file: KeysFile) -> None:
    """Show the names, scopes and bounds of the keys in FILE. The keys themselves are not in it.

    Example: atspeed keys list keys.json
    """
    with failing_on(KeysFileError):
        keys = parse(read_bytes(file), file).keys
    rows = [
        [
            key.name,
            " ".join(each.value for each in key.scopes),
            *map(_shown, (key.rate, key.concurrent, key.max_k, key.max_width, key.max_scored)),
        ]
        for key in keys
    ]
    print_table(f"Keys of {file}", ["name", "scopes", "rate", "concurrent", "k", "width", "scored"], rows, left=("name", "scopes"))


@keys_app.command()
def remove(file: KeysFile, name: Annotated[str, typer.Option(help="Name of the key.")]) -> None:
    """Take a key out of FILE: a running server refuses it a second later.

    Example: atspeed keys remove keys.json --name shop
    """
    with failing_on(KeysFileError):
        remove_key(file, name)


def _shown(bound: str | int | None) -> str:
    return "" if bound is None else str(bound)
