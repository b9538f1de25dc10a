"""`atspeed catalog`: make a catalog for items that have no identifiers (`catalog_build.py`), and look into one."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.catalog_build import build
from server.commands.catalog_compare import compare
from server.commands.file_or_url import URL_HELP, file_or_url
from server.commands.options import default, setting
from server.commands.terminal import check_out, fail, failing_on
from server.commands.values import words

if TYPE_CHECKING:
    from drafting.catalog.catalog import Catalog
    from drafting.catalog.code_matrix import MatrixItems

FILE_ARGUMENT = typer.Argument(help=f"A catalog of any form, {URL_HELP}.", parser=file_or_url, metavar="FILE")
ITEMS_OPTION = typer.Option(
    help="The items of a matrix of codes (.pt, .npy), in order, as for `build`; their numbers by default.", exists=True, dir_okay=False
)
SIDE_OPTION = typer.Option(help="The side of a matrix of codes that has an item each.", metavar="rows|columns", show_default="by its shape")

catalog_app = typer.Typer(help="Make a catalog, or look into one.", no_args_is_help=True)
catalog_app.command()(build)
catalog_app.command()(compare)


@catalog_app.command()
def convert(
    file: Annotated[Path, FILE_ARGUMENT],
    out: Annotated[
        Path,
        typer.Option(
            help="The catalog to write, ending in .catalog; what FILE has learnt from interactions goes to OUT with the ending "
            ".learnt.json."
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(help="The model that it is for: its tokens are checked, and loading needs no sort.", file_okay=False)
    ] = None,
    tokens: Annotated[str, typer.Option(help="How integer codes become tokens.")] = "<{letter}_{code}>",
    items: Annotated[Path | None, ITEMS_OPTION] = None,
    items_in: Annotated[str | None, SIDE_OPTION] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a catalog as a file that is mapped instead of read: ten million items load in a tenth of a second.

    Example: atspeed catalog convert items.parquet --out items.catalog --model MODEL_DIR
    """
    from drafting.catalog.artefact import SUFFIX

    if out.suffix != SUFFIX:
        fail(f"{out} must end in {SUFFIX}, by which it is known.")
    from drafting.embeddings.learnt import copy_learnt, learnt_copy

    # Beside a catalog of another form there may be a record by the same name.
    record = learnt_copy(file, out)
    check_out(out, *([] if record is None else [record]), overwrite=overwrite)

    from tqdm import tqdm

    from drafting.catalog.artefact import save_artefact
    from drafting.catalog.loading import load_catalog
    from drafting.errors import SetupError

    with failing_on(SetupError):
        with tqdm(desc="reading", unit=" items", unit_scale=True) as bar:
            catalog = load_catalog(file, tokens, bar.update, matrix=_matrix_items(items, items_in), on_form=_found(file))
        if model is not None:
            from verification.hosts.checkpoint import load_tokenizer

            catalog = catalog.ordered(catalog.vocabulary_ids(load_tokenizer(model).get_vocab()))
    try:
        save_artefact(catalog, out)
        copy_learnt(file, out)
    except SetupError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}.")
    typer.echo(f"Wrote {out} ({len(catalog):,} items, {catalog.identifiers:,} identifiers, version {catalog.version}).")


@catalog_app.command()
def inspect(
    file: Annotated[Path, FILE_ARGUMENT],
    samples: Annotated[int, typer.Option(help="How many items to show.", min=0)] = 5,
    tokens: Annotated[str, typer.Option(help="How integer codes become tokens.")] = "<{letter}_{code}>",
    items: Annotated[Path | None, ITEMS_OPTION] = None,
    items_in: Annotated[str | None, SIDE_OPTION] = None,
    like: Annotated[str | None, typer.Option(help="Show instead which items share codes with this one.", metavar="ITEM")] = None,
    prompt: Annotated[str | None, typer.Option(help="Show the prompt of this stored user instead.", metavar="USER")] = None,
    history: Annotated[str | None, typer.Option(help="Show the prompt of these item ids instead, oldest first.", metavar="ID,ID,…")] = None,
    target: Annotated[Path | None, setting("target", help="The model that prompts are for.", exists=True, file_okay=False)] = None,
    base: Annotated[Path | None, setting("base", exists=True, file_okay=False)] = None,
    histories: Annotated[str, setting("histories", envvar="ATSPEED_HISTORIES")] = default("histories"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the prompt as JSON instead of a table.")] = False,
) -> None:
    """Show what a catalog holds, how its trie branches, which items share codes, or a user's prompt, token by token.

    Examples:

    atspeed catalog inspect catalog.jsonl

    atspeed catalog inspect catalog.jsonl --like 1193

    atspeed catalog inspect catalog.jsonl --target MODEL_DIR --prompt anna
    """
    asks_prompt = prompt is not None or history is not None
    if asks_prompt and target is None:
        fail("A prompt is made for a model: name its directory with --target.")
    if prompt is not None and history is not None:
        fail("Give --prompt or --history, not both.")
    from drafting.catalog.catalog import CatalogError
    from drafting.catalog.loading import load_catalog

    with failing_on(CatalogError):
        catalog = load_catalog(file, tokens, matrix=_matrix_items(items, items_in), on_form=_found(file))
    if asks_prompt and target is not None:
        from server.commands.prompt import show_prompt

        show_prompt(catalog, target, base, prompt, words(history or ""), histories, as_json)
    elif like is not None:
        _show_like(catalog, like, samples)
    else:
        _show(catalog, samples)


def _found(file: Path) -> Callable[[str], None]:
    """What tells the form of a file."""
    return lambda form: typer.echo(f"{file} is {form}.", err=True)


def _matrix_items(items: Path | None, side: str | None) -> "MatrixItems":
    """The items of a matrix of codes, by the flags."""
    from drafting.catalog.code_matrix import MatrixItems
    from drafting.catalog.item_list import ItemList

    named = None if items is None else ItemList.read(items)
    match side:
        case "rows" | "columns" | None:
            return MatrixItems(side, named)
    fail(f"--items-in takes rows or columns, got {side!r}.")


def _show(catalog: "Catalog", samples: int) -> None:
    import numpy as np

    trie = catalog.trie
    holders = np.diff(trie.first_item)
    shared = holders[holders > 1]
    typer.echo(f"version             {catalog.version}")
    typer.echo(f"items               {len(catalog):,}, {catalog.titled_items:,} with a title")
    typer.echo(
        f"identifiers         {len(holders):,} of {catalog.identifier_length} tokens, {len(catalog.tokens):,} different tokens in all"
    )
    typer.echo(f"shared identifiers  {len(shared):,}, by {int(shared.sum()):,} items")
    typer.echo(f"\n{'depth':>5}  {'nodes':>10}  {'children of a node above':>26}  {'most':>6}  {'only children':>13}")
    for depth in range(1, trie.depth + 1):
        children = np.diff(trie.first_child[trie.level_starts[depth - 1] : trie.level_starts[depth] + 1])
        only = float((children == 1).sum() / trie.level_size(depth))
        typer.echo(f"{depth:>5}  {trie.level_size(depth):>10,}  {children.mean():>26.2f}  {children.max():>6,}  {only:>13.1%}")
    for index in np.linspace(0, len(catalog) - 1, min(samples, len(catalog)), dtype=int).tolist():
        lead = "\n" if index == 0 else ""
        typer.echo(f"{lead}{''.join(catalog.identifier(index))}  {catalog.item_ids[index]}  {catalog.title(index) or ''}".rstrip())


def _show_like(catalog: "Catalog", item: str, samples: int) -> None:
    """The items that share the identifier of an item, then those that share all of it but the last code, and so on."""
    from drafting.catalog.alike import alike

    index = catalog.index_of(item)
    if index is None:
        fail(f"The catalog has no item {item!r}.")
    identifier = catalog.identifier(index)
    typer.echo(f"{''.join(identifier)}  {item}  {catalog.title(index) or ''}".rstrip())
    for found in alike(catalog, index, samples):
        shared = "".join(identifier[: found.depth])
        typer.echo(f"\n{shared}  {'another item' if found.count == 1 else f'{found.count:,} other items'}")
        for other in found.items.tolist():
            rest = "".join(catalog.identifier(other)[found.depth :])
            typer.echo(f"  {rest}  {catalog.item_ids[other]}  {catalog.title(other) or ''}".rstrip())
