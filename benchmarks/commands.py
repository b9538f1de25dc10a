"""The commands of `atspeed-bench` that have no folder of commands of their own.

Invariant: as in `benchmarks.cli`, nothing heavy is imported before a command runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.endings import require, sentences
from benchmarks.load.command import Out
from server.commands.terminal import fail
from server.commands.values import chosen, some_words, whole_numbers

Shared = Annotated[Path, typer.Option(help="Directory that holds beauty and games, as the paper has them.")]
Results = Annotated[Path, typer.Option(help="Directory of the results.", file_okay=False)]


def prompt(
    tokens: Annotated[int, typer.Option(help="Of a prompt, about.", min=1)] = 1000,
    requests: Annotated[int, typer.Option(help="Users who ask, each twice.", min=1)] = 300,
) -> None:
    """Time the building of prompts in processor time of the thread: for new users, and for users who have met one item more.

    Example: atspeed-bench prompt --tokens 2000
    """
    from benchmarks.prompts import TEMPLATES, measure, table

    typer.echo(table([measure(name, tokens, requests) for name in TEMPLATES]))


def client(
    requests: Annotated[int, typer.Option(help="Requests of each kind, in turns.", min=1)] = 2000,
    k: Annotated[int, typer.Option(help="Items of a list.", min=1)] = 10,
) -> None:
    """Time what the Python clients add to a request over raw httpx, in processor time of the thread that asks.

    The exit status is 1 if one of them adds more than 0.2 ms.

    Example: atspeed-bench client --requests 5000
    """
    require("httpx")
    from benchmarks.client import BAR_MS, measure, table

    overheads = measure(requests, k)
    typer.echo(table(overheads))
    if slow := [each.name for each in overheads if each.added > BAR_MS]:
        fail(f"{' and '.join(slow)} add more than {BAR_MS} ms.")


def paper(
    data: Annotated[
        Path | None,
        typer.Option(help="Interactions of your own instead, as for `atspeed train`.", exists=True, file_okay=False, show_default="none"),
    ] = None,
    catalog_file: Annotated[
        Path | None, typer.Option("--catalog", help="Their catalog.", exists=True, dir_okay=False, show_default="none")
    ] = None,
    shared: Shared = Path("../shared/data"),
    only: Annotated[str, typer.Option(help="The paper's data sets, separated by commas.")] = "beauty,games",
    work: Annotated[Path, typer.Option(help="Directory of models and logs; what is there is not made again.")] = Path("build/paper"),
    results: Results = Path("docs/results"),
    seeds: Annotated[int, typer.Option(help="Drafts per objective.", min=1)] = 3,
    objectives: Annotated[str | None, typer.Option(help="Objectives, separated by commas.", show_default="all")] = None,
) -> None:
    """Make the paper's tables, from interactions to the report: train a target and drafts, and evaluate them (hours for each data set).

    What is there is named after the commands that made it, and after what --data and --catalog hold: the same command goes on where it was,
    and with other data begins anew.

    Example: atspeed-bench paper --only beauty --objectives sft,atspeed-s,atspeed-r
    """
    require("matplotlib")
    if (data is None) != (catalog_file is None):
        fail("Give --data and --catalog together, or neither for the paper's data sets.")
    from benchmarks.paper import own, papers, run
    from drafting.alignment.needs import OBJECTIVES

    asked = OBJECTIVES if objectives is None else chosen("objective", objectives, OBJECTIVES)
    with sentences():
        if data is None or catalog_file is None:
            sources, flags = papers(some_words("--only", only), shared), ["--only", only]
        else:
            sources, flags = [own(data, catalog_file)], ["--data", str(data), "--catalog", str(catalog_file)]
        command = " ".join(["atspeed-bench paper", *flags, "--objectives", ",".join(asked), "--seeds", str(seeds)])
        for report in run(sources, work, results, seeds, asked, command):
            typer.echo(f"Wrote {report}.")


def quality(
    work: Annotated[Path, typer.Option(help="Directory of models and logs; what is there is not made again.")] = Path("build/quality"),
    shared: Shared = Path("../shared/data"),
    results: Results = Path("docs/results"),
    only: Annotated[str, typer.Option(help="Data sets, separated by commas.")] = "beauty,games,movielens",
    seeds: Annotated[int, typer.Option(help="Targets of each data set.", min=1)] = 3,
    minutes: Annotated[float | None, typer.Option(help="Begin nothing after so many minutes.", min=0, show_default="no end")] = None,
    side_by_side: Annotated[int, typer.Option(help="Targets, and baselines, at a time; the cores are shared.", min=1)] = 2,
) -> None:
    """Make identifiers and targets of real data, and compare their lists with strong baselines (hours).

    The table is written from what is done when the command ends; of data sets that are not asked, it keeps what it has. The same command
    goes on with the rest. What is there is named after the commands that made it, so where a recipe has changed, what depends on it is made
    anew.

    Example: atspeed-bench quality --only movielens --seeds 1
    """
    from benchmarks.quality import run

    with sentences():
        report = run(some_words("--only", only), work, shared, results, seeds, minutes, side_by_side)
    typer.echo(f"Wrote {report}.")


def scaling(
    out: Out = Path("docs/results"),
    replicas: Annotated[str, typer.Option(help="Numbers of replicas, separated by commas.")] = "2,4,8,16,32,64",
    forward_ms: Annotated[float, typer.Option(help="Fixed part of a forward on your machine.", min=0)] = 6.5,
    token_ms: Annotated[float, typer.Option(help="What a token adds to it.", min=0)] = 0.126,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another field of the simulated world, such as rate=40.", show_default="none"),
    ] = None,
) -> None:
    """Simulate what routing users to the replica that knows them is worth: cached prompt tokens and latency (ten seconds).

    Writes `scaling.json` and `scaling.png`.

    Example: atspeed-bench scaling --out . --replicas 2,8 --set rate=20
    """
    require("matplotlib")
    from benchmarks.scaling import make_world, run

    try:
        world = make_world([f"forward_ms={forward_ms}", f"token_ms={token_ms}", *(settings or [])])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    run(out, whole_numbers("--replicas", replicas), world)
