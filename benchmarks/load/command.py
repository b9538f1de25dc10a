"""`atspeed-bench load`, `standard` and `swaps`: servers under load."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.endings import require, sentences
from benchmarks.options import in_a_directory
from server.commands.values import words

Out = Annotated[Path, typer.Option(help="Directory of the figures.", exists=True, file_okay=False)]
Users = Annotated[int, typer.Option(help="Users; few of them ask often.", min=1)]
ServerFlags = Annotated[list[str] | None, typer.Argument(help="Flags of the server, after --.", metavar="FLAG")]

MAX_TIMEOUT_MS = 60_000


def load(
    url: Annotated[str, typer.Option(help="The server, such as http://127.0.0.1:8000.")] = "http://127.0.0.1:8000",
    rate: Annotated[float, typer.Option(help="Requests a second.", min=0.001)] = 10.0,
    sweep: Annotated[
        str | None, typer.Option(help="Several rates, one run each, instead of --rate.", metavar="RATE,RATE,…", show_default="none")
    ] = None,
    duration: Annotated[float, typer.Option(help="Measured seconds of a run.", min=0.1)] = 30.0,
    warmup: Annotated[float, typer.Option(help="Seconds before them that don't count.", min=0)] = 5.0,
    users: Users = 1000,
    zipf: Annotated[float, typer.Option(help="How much more often: the n-th user asks in proportion to 1 / n^zipf.", min=0)] = 1.0,
    k: Annotated[int, typer.Option("--k", "-k", help="Identifiers of a list.", min=1, max=100)] = 10,
    timeout_ms: Annotated[str, typer.Option(help="Timeout of a request, or the range to draw it from.", metavar="MS|MS-MS")] = "1000",
    histories: Annotated[
        Path | None,
        typer.Option(help='First histories: JSONL of {"history": [id, …]}.', show_default="20 random items of the server's catalog"),
    ] = None,
    growth: Annotated[float, typer.Option(help="Share of lists after which the user takes one of the items.", min=0, max=1)] = 0.5,
    hang_ups: Annotated[float, typer.Option(help="Share of requests whose client gives up early.", min=0, max=1)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of all that is drawn; also names the users.", min=0)] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures there.", callback=in_a_directory)] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency and throughput over the rate there (PNG).", callback=in_a_directory)
    ] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Load a server on another machine; only do so to your own.")] = False,
) -> None:
    """Load a running server and say how it bears it.

    Requests come at random times (Poisson) at the given rate, independent of the answers to those before them, and every latency counts
    from the time at which its request was due. Users are `load-<seed>-<n>`; their histories are stored on the server and grow as they ask.

    Example: atspeed-bench load --sweep 5,10,20,40,80 --duration 30 --json load.json --plot load.png
    """
    rates = _numbers(sweep) if sweep is not None else [rate]
    timeouts = _range(timeout_ms)
    require("httpx", "hdrh", *(["matplotlib"] if plot else []))
    from benchmarks.load.runs import LoadPlan, run_plan
    from benchmarks.load.settings import LoadSettings

    settings = LoadSettings(
        rate=rates[0],
        seconds=duration,
        warmup_seconds=warmup,
        k=k,
        timeouts_ms=timeouts,
        growth=growth,
        hang_ups=hang_ups,
        seed=seed,
    )
    plan = LoadPlan(
        url=url.rstrip("/"),
        rates=rates,
        settings=settings,
        users=users,
        zipf=zipf,
        histories=histories,
        allow_remote=allow_remote,
    )
    with sentences():
        run_plan(plan, json_file, plot)


def standard(
    out: Out = Path("docs/results"),
    seconds: Annotated[float, typer.Option(help="Measured seconds of a run.", min=0.1)] = 30.0,
    users: Users = 500,
    flags: ServerFlags = None,
) -> None:
    """Measure what batching is worth, how latency grows with load and what overload does (idle machine, a quarter of an hour).

    Servers of a small random model are started one after the other: one that runs one request at a time, then one that batches. Writes
    `load.json` and `load.png`.

    Example: atspeed-bench standard --out . -- --engine transformers
    """
    require("httpx", "hdrh", "matplotlib")
    from benchmarks.load.standard import run

    with sentences():
        run(out, seconds, users, flags or [])


def swaps(
    rate: Annotated[float, typer.Option(help="Requests a second.", min=0.001)] = 20.0,
    seconds: Annotated[float, typer.Option(help="Measured seconds of a run.", min=0.1)] = 20.0,
    pause: Annotated[float, typer.Option(help="Seconds between two swaps.", min=0)] = 0.1,
    flags: ServerFlags = None,
) -> None:
    """Replace the catalog ten times a second under load, and print what that costs as JSON (idle machine, two minutes).

    Example: atspeed-bench swaps --rate 10
    """
    require("httpx", "hdrh")
    from benchmarks.load.swaps import run

    with sentences():
        run(rate, seconds, pause, flags or [])


def wide(
    narrow: Annotated[int, typer.Option(help="Clients that ask for lists of 10.", min=1)] = 50,
    clients: Annotated[int, typer.Option(help="Clients that ask for wide lists.", min=1)] = 8,
    width: Annotated[int, typer.Option(help="Beam width and length of wide lists.", min=11, max=2000)] = 1000,
    rounds: Annotated[int, typer.Option(help="Blocks of each kind that count.", min=1)] = 2,
    seconds: Annotated[float, typer.Option(help="Seconds of a block.", min=0.1)] = 20.0,
    flags: ServerFlags = None,
) -> None:
    """Ask for narrow lists, by turns alone and beside wide ones, and print what that costs as JSON (idle machine, two minutes).

    Example: atspeed-bench wide -- --engine transformers --threads 1
    """
    require("httpx")
    from benchmarks.load.wide import run

    with sentences():
        run(narrow, clients, width, rounds, seconds, flags or [])


def builds(
    build: Annotated[list[str] | None, typer.Option(help="Name and folder of a build; may be repeated.", metavar="NAME=FOLDER")] = None,
    rounds: Annotated[int, typer.Option(help="Blocks of lists of each kind that count.", min=1)] = 5,
    lists: Annotated[int, typer.Option(help="Lists of a block that are asked one at a time.", min=1, max=200)] = 100,
    flags: ServerFlags = None,
) -> None:
    """Compare what a server adds to its engine's time, its lists a second and its processor time, for builds by turns (idle machine).

    Without --build, that of this command alone. Builds share this environment; another one is the folder of a `git worktree`.

    Example: atspeed-bench builds --build now=. --build before=../before -- --threads 1 --engine transformers
    """
    require("httpx")
    from benchmarks.load.builds import run
    from benchmarks.server_process import ROOT

    named = dict(_named(each) for each in build or [f"this={ROOT}"])
    with sentences():
        run(named, rounds, lists, flags or [])


def journey(flags: ServerFlags = None) -> None:
    """List the files of this project that one request runs through, in both processes of a server.

    Example: atspeed-bench journey -- --engine transformers
    """
    require("httpx")
    from benchmarks.journey import run

    with sentences():
        run(flags or [])


def _named(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not (Path(folder) / "server" / "cli.py").is_file():
        raise typer.BadParameter(f"--build takes a name and the folder of a build, such as before=../before, got {text!r}.")
    return name, Path(folder)


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(number) for number in words(text)] or [0.0]
    except ValueError:
        numbers = [0.0]
    if not all(0.001 <= number < float("inf") for number in numbers):
        raise typer.BadParameter(f"--sweep takes rates above 0, separated by commas, got {text!r}.")
    return numbers


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        low, high = 0, 0
    if not 1 <= low <= high <= MAX_TIMEOUT_MS:
        raise typer.BadParameter(f"--timeout-ms takes milliseconds from 1 to {MAX_TIMEOUT_MS}, or a range such as 200-2000, got {text!r}.")
    return low, high
