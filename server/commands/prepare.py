"""`atspeed prepare`: from raw interactions to a data directory that all other commands take."""

from pathlib import Path
from typing import Annotated

import typer

from server.commands.interaction_options import InteractionOptions, interaction_options
from server.commands.options import takes
from server.commands.terminal import fail
from server.commands.values import words

# Flags of `catalog build` for identifiers that a small model learns well.
_FORM = " --levels 1 --item-token"


@takes(interaction_options)
def prepare(
    settings: InteractionOptions,
    source: Annotated[
        Path, typer.Argument(help="Interactions: CSV, TSV, JSONL or parquet, packed or not, or a directory of these.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="The directory to write; `--data` of other commands takes it.")],
    items: Annotated[Path | None, typer.Option(help="Titles and attributes of items, in a file of the same forms.", exists=True)] = None,
    users: Annotated[Path | None, typer.Option(help="What is known of users, in a file of the same forms.", exists=True)] = None,
    title: Annotated[str | None, typer.Option(help="Column of titles in --items.", show_default="by its name")] = None,
    item_key: Annotated[str | None, typer.Option(help="Column of the item ids in --items.", show_default="by its name")] = None,
    user_key: Annotated[str | None, typer.Option(help="Column of the user ids in --users.", show_default="by its name")] = None,
    item_columns: Annotated[str, typer.Option(help="Columns of --items to keep.", metavar="A,B,…", show_default="all")] = "",
    user_columns: Annotated[str, typer.Option(help="Columns of --users to keep.", metavar="A,B,…", show_default="all")] = "",
    min_rating: Annotated[float | None, typer.Option(help="Leave out interactions with less, or without a rating.")] = None,
    core: Annotated[
        int, typer.Option(help="Keep users and items with at least so many interactions, until none has fewer (k-core).", min=1)
    ] = 1,
    repeats: Annotated[str, typer.Option(help="Which interactions of a user with the same item stay: all, first or last.")] = "all",
    split: Annotated[
        str, typer.Option(help="The split that other commands use by default: leave-one-out or global-time (8:1:1).")
    ] = "leave-one-out",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, with all that is in it.")] = False,
) -> None:
    """Make a data directory of raw interactions: one file of them in order, the items met with titles and attributes, the split.

    MovieLens (100k to 25M), Amazon's reviews (2014, 2018, 2023) and RecBole's atomic files are recognised by themselves.

    Examples:

    atspeed prepare interactions.csv --items items.csv --core 5 --out data/mine

    atspeed prepare logs/ --user customer --item sku --time created_at --kind event --out data/shop

    atspeed prepare ml-1m --min-rating 4 --split global-time --out data/ml-1m
    """
    from drafting.errors import SetupError

    try:
        from drafting.preparation.run import prepare as run
    except ImportError as missing:
        fail(f"Preparing data needs the extra 'train' ({missing}): pip install 'atspeed-server[train]'.")
    try:
        asked = settings.preparation(
            source,
            out,
            items=items,
            users=users,
            item_key=item_key,
            user_key=user_key,
            title=title,
            item_columns=tuple(words(item_columns)),
            user_columns=tuple(words(user_columns)),
            min_rating=min_rating,
            core=core,
            repeats=repeats,
            split=split,
            overwrite=overwrite,
        )
        summary = run(asked, lambda sentence: typer.echo(sentence, err=True))
    except SetupError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror or error}.")
    typer.echo("")
    for name, figures in summary.rows(split):
        typer.echo(f"{name:<19} {figures}")
    typer.echo(f"\nWrote {out}. Next:\n\n    atspeed catalog build --data {out} --out {out / 'catalog.jsonl'}{_FORM}")
