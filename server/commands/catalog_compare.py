"""`atspeed catalog compare`: which of several catalogs of the same items a target learns best, found out in minutes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drafting.alignment.data.record import AUTO, split_kind
from drafting.alignment.settings import LARGEST_SEED
from server.commands.learnt import refuse_learnt_identifiers
from server.commands.terminal import fail, print_table
from server.commands.train.running import Threads, failing, loading_libraries

if TYPE_CHECKING:
    from drafting.catalog.catalog import Catalog
    from verification.evaluation.proxy import ProxySettings


def compare(
    catalogs: Annotated[list[Path], typer.Argument(help="Catalogs of the same items, of any form.", exists=True, dir_okay=False)],
    data: Annotated[Path, typer.Option(help="A directory of interactions, as `train` takes it.", exists=True, file_okay=False)],
    epochs: Annotated[float, typer.Option(help="Passes of each tiny target over the training part.", min=0)] = 4.0,
    users: Annotated[int, typer.Option(help="Most validation users to ask, spread evenly.", min=1)] = 1000,
    base: Annotated[str, typer.Option(help="What the tiny targets are made of, as for `train target`.")] = "draft",
    split: Annotated[str, typer.Option(help="How DATA is split, if it is one stream; as for `train target`.")] = AUTO,
    min_items: Annotated[int, typer.Option(help="Leave out shorter users of DATA; as for `train target`.", min=1)] = 1,
    label_kind: Annotated[
        str | None, typer.Option(help="Kind of interactions of DATA to predict; as for `train target`.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all tiny targets.", min=0, max=LARGEST_SEED)] = 0,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Keep what users have met in their lists, as for `evaluate`.")] = False,
    threads: Threads = None,
) -> None:
    """Train a tiny target with each catalog and print what its lists are worth on the validation part.

    The figures rank identifiers; a target worth serving is larger and reaches more.

    Example: atspeed catalog compare given.json catalog.jsonl --data data/mine
    """
    from drafting.catalog.loading import load_catalog

    with failing("from the beginning"):
        loaded = [load_catalog(path) for path in catalogs]
        for path, catalog in zip(catalogs, loaded, strict=True):
            if set(catalog.item_ids) != set(loaded[0].item_ids):
                fail(f"{path} and {catalogs[0]} hold other items: only identifiers of the same items can be compared.")
        with loading_libraries(threads):
            from drafting.alignment.data.splits import SplitRule
            from verification.evaluation.proxy import ProxySettings
        settings = ProxySettings(base, epochs, users, SplitRule(split_kind(split, data), min_items, label_kind), seed, keep_seen)
        for path, catalog in zip(catalogs, loaded, strict=True):
            refuse_learnt_identifiers(path, catalog, data, settings.rule, "valid")
        best_of(dict(zip(map(str, catalogs), loaded, strict=True)), data, settings)


def best_of(catalogs: "Mapping[str, Catalog]", data: Path, settings: "ProxySettings") -> str:
    """Judge catalogs of the same items by a proxy, print the table, and return the name of the best.

    Raises:
        SetupError: the data or a catalog cannot be used.
    """
    from verification.evaluation.proxy import judge_identifiers

    rows = []
    for name, catalog in catalogs.items():
        typer.echo(f"{name}:", err=True)
        found = judge_identifiers(data, catalog, settings)
        loss = "" if found.loss is None else f"{found.loss:.3f}"
        figures = (f"{found.recall:.4f} ± {found.error:.4f}", f"{found.ndcg:.4f}", loss, f"{found.seconds:.0f} s")
        rows.append((found.recall, (name, f"{catalog.identifier_length}", f"{len(catalog.tokens):,}", *figures)))
    best_first = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    columns = ("catalog", "length", "tokens", "Recall@10", "NDCG@10", "loss", "took")
    seen = "kept" if settings.keep_seen else "left out"
    print_table(f"{found.users:,} validation users, seen items {seen}, best first", columns, best_first, left=("catalog",))
    return best_first[0][0]
