"""The commands of `atspeed-bench` that look at this engine alone: whether its lists are exact, and what its parts cost.

Invariant: as in `benchmarks.cli`, nothing heavy is imported before a command runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.endings import require, sentences
from benchmarks.options import ITEMS_ALONE, CatalogFile, Data, Draft, Lengths, Target, WholeData, list_lengths
from drafting.beam.rule import LONGEST_LIST, MAX_BEAM_WIDTH, WIDEST_BEAM
from server.commands.terminal import fail
from server.commands.values import some_words, whole_numbers


def lossless(
    target: Target,
    draft: Draft,
    catalog_file: CatalogFile,
    data: Data,
    k: Lengths = "10,20",
    plans: Annotated[str | None, typer.Option(help="Plans, separated by commas.", show_default="one of each kind")] = None,
    rules: Annotated[str, typer.Option(help="Verification: strict, gumbel or both, separated by a comma.")] = "strict",
    engine: Annotated[str, typer.Option(help="What runs the models: transformers or vllm.")] = "transformers",
) -> None:
    """Search the lists of all test users with every plan, and count those that differ from plain beam search.

    The exit status is 1 if a list differs in more than the order of equal scores.

    Example: atspeed-bench lossless --target models/target --draft models/draft --catalog beauty.index.json --data beauty
    """
    from benchmarks.systems.lossless import PLANS, run

    wanted = PLANS if plans is None else some_words("--plans", plans)
    with sentences():
        different = run(target, draft, catalog_file, data, list_lengths(k), wanted, some_words("--rules", rules), engine)
    if different:
        fail(f"{different} lists differ.")


def tolerance(
    target: Target,
    draft: Draft,
    catalog_file: CatalogFile,
    data: WholeData,
    k: Annotated[int, typer.Option(help="Identifiers of a list.", min=1, max=MAX_BEAM_WIDTH)] = 20,
    tolerances: Annotated[
        str, typer.Option(help="Items that may differ, or shares of the list's probability, separated by commas.")
    ] = "1,2,4,8,5%",
    balance: Annotated[
        int,
        typer.Option(help="Fixed part of a forward on the modelled machine, in tokens; a draft's forward costs 1% of the target's.", min=1),
    ] = 300,
    users: Annotated[int | None, typer.Option(help="Test users, spread evenly over the data.", min=1, show_default="all")] = None,
    engine: Annotated[str, typer.Option(help="What runs the models: transformers or vllm.")] = "transformers",
) -> None:
    """Search lists with a tolerance, and tell what they lack of plain beam search's and what they would save on another machine.

    Users are asked again after their newest event, one at a time. The exit status is 1 if a list is beyond its bound. Neither target nor
    catalog may have learnt the test part: make them with `--fit train+valid`.

    Example: atspeed-bench tolerance --target models/target --draft models/draft --catalog beauty.index.json --data beauty
    """
    from benchmarks.systems.tolerance import run

    with sentences():
        table, beyond = run(target, draft, catalog_file, data, k, some_words("--tolerances", tolerances), balance, users, engine)
    typer.echo(table)
    if beyond:
        fail(f"{beyond} lists are beyond their bound.")


def precision(
    target: Target,
    draft: Draft,
    catalog_file: CatalogFile,
    data: Data,
    dtypes: Annotated[str, typer.Option(help="Precisions, separated by commas.")] = "float32,bfloat16",
    k: Lengths = "10",
    plan: Annotated[str, typer.Option(help="A fixed plan.")] = "beam:40",
    users: Annotated[int, typer.Option(help="Test users, spread evenly over the data.", min=1)] = 300,
) -> None:
    """Count the lists that drafting changes in a low precision, and whether noise explains each of them.

    The exit status is 1 if a list differs by more than noise can explain.

    Example: atspeed-bench precision --target models/target --draft models/draft --catalog beauty.index.json --data beauty
    """
    from benchmarks.systems.precision import run

    with sentences():
        different = run(target, draft, catalog_file, data, some_words("--dtypes", dtypes), list_lengths(k), plan, users)
    if different:
        fail(f"{different} lists differ by more than noise.")


def exactness(
    target: Target,
    catalog_file: CatalogFile,
    data: Annotated[
        Path | None, typer.Option(help=f"Interactions: the target's test users are asked {ITEMS_ALONE}. By default random histories.")
    ] = None,
    draft: Annotated[Path | None, typer.Option(help="Directory of the draft model; none by default.", file_okay=False)] = None,
    k: Annotated[int, typer.Option(help="Identifiers of a list.", min=1, max=LONGEST_LIST)] = 10,
    users: Annotated[int, typer.Option(help="Test users, spread evenly over the data, or random histories.", min=1)] = 300,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
) -> None:
    """Count the lists that company, a cached prompt and drafts change in float32, bfloat16 and bfloat16 with `--exact`, and time these.

    The exit status is 1 if a list differs that is said to be exact, the order of equal scores aside.

    Example: atspeed-bench exactness --target models/target --catalog beauty.index.json --data beauty
    """
    from benchmarks.systems.exactness import run

    with sentences():
        wrong = run(target, draft, catalog_file, data, k, users, threads)
    if wrong:
        fail(f"{wrong} lists differ that are said to be exact.")


def widths(
    target: Target,
    catalog_file: CatalogFile,
    data: WholeData,
    widths: Annotated[str, typer.Option(help="Beam widths, separated by commas.")] = "10,20,30,50,100,200",
    k: Annotated[int, typer.Option(help="Identifiers of a list.", min=1, max=LONGEST_LIST)] = 10,
    users: Annotated[int | None, typer.Option(help="Test users, spread evenly over the data.", min=1, show_default="all")] = None,
    timed: Annotated[int, typer.Option(help="Of those, users that are asked one at a time.", min=1)] = 200,
    engine: Annotated[str, typer.Option(help="What runs the model: transformers or vllm.")] = "transformers",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
) -> None:
    """Measure what beam widths give and cost: Recall and NDCG of the lists, latency of one request at a time, throughput of full batches.

    Neither target nor catalog may have learnt the test part: make them with `--fit train+valid`.

    Example: atspeed-bench widths --target models/mine --catalog data/mine/catalog.jsonl --data data/mine
    """
    from benchmarks.systems.widths import run

    with sentences():
        typer.echo(run(target, catalog_file, data, whole_numbers("--widths", widths, WIDEST_BEAM), k, users, timed, threads, engine))


def forwards(
    shape: Annotated[str, typer.Option(help="Random target and catalog, as of bench: small, tiny or larger.")] = "small",
    widths: Annotated[str, typer.Option(help="Beam widths, and as many identifiers of a list, separated by commas.")] = "10,50,256,1000",
    requests: Annotated[int, typer.Option(help="Timed requests of a width.", min=1)] = 10,
    generated: Annotated[int, typer.Option(help="Of those, requests that `generate` is asked, too.", min=0)] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads of each system.", min=1)] = 1,
) -> None:
    """Time lists of both hosts and of transformers' `generate`, and of the same tokens bare forwards and matrix products alone, by turns
    (idle machine).

    Example: atspeed-bench forwards --widths 10,256 --requests 5
    """
    from benchmarks.systems.forwards import run
    from benchmarks.systems.shapes import SHAPES

    if shape not in SHAPES:
        raise typer.BadParameter(f"there is no shape {shape!r}: choose {', '.join(SHAPES)}.")
    require("psutil")
    with sentences():
        typer.echo(run(shape, whole_numbers("--widths", widths, LONGEST_LIST), requests, generated, threads))


def steps(
    shape: Annotated[str, typer.Option(help="Random target, draft and catalog: small, tiny or larger.")] = "small",
    engine: Annotated[str, typer.Option(help="What runs the models: vllm or transformers.")] = "vllm",
    plan: Annotated[str, typer.Option(help="What is drafted.")] = "none",
    k: Lengths = "1,10,20",
    lists: Annotated[int, typer.Option(help="Lists of each length.", min=1)] = 100,
    items: Annotated[int, typer.Option(help="Items of a history.", min=1)] = 20,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores by default.", min=1)] = None,
) -> None:
    """Time what a step of the engine takes outside the models' forwards, on random models (idle machine).

    Example: atspeed-bench steps --engine transformers --plan trie
    """
    from benchmarks.systems.step_profile import run

    with sentences():
        run(shape, engine, plan, list_lengths(k), lists, items, threads)


def catalog(
    sizes: Annotated[str, typer.Option(help="Items of each catalog, separated by commas.")] = "10000,100000,1000000,10000000",
) -> None:
    """Time building, loading and searching catalogs of up to 10^7 items (two minutes, 3 GB of memory and 1 GB of disk).

    Prints a line of JSON per size, and one for a thousand filters over 10^6 items.

    Example: atspeed-bench catalog --sizes 10000,100000
    """
    from benchmarks.systems.catalog_scale import run

    run(whole_numbers("--sizes", sizes))


def expansion(
    items: Annotated[int, typer.Option(help="Items of the random catalog.", min=1)] = 10**7,
    beams: Annotated[int, typer.Option(help="Beams, and identifiers found.", min=1)] = 50,
    rounds: Annotated[int, typer.Option(help="Searches that are timed.", min=1)] = 50,
    static: Annotated[
        Path | None,
        typer.Option(help="Checkout of github.com/youtube/static-constraint-decoding, to time beside it.", show_default="none"),
    ] = None,
) -> None:
    """Time the expansion of a beam at each depth, beside the formula it had before and STATIC's (STATIC: minutes and 6 GB of memory).

    Example: atspeed-bench expansion --items 1000000 --static static-constraint-decoding
    """
    from benchmarks.systems.expansion import run

    with sentences():
        run(items, beams, rounds, static)
