"""`atspeed-bench fuzz`: a server is sent thousands of generated requests."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.endings import require, sentences
from benchmarks.load.command import ServerFlags
from server.commands.terminal import fail


def fuzz(
    cases: Annotated[int, typer.Option(help="Requests, at least.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the first round; each further round has the next one.", min=0)] = 0,
    flags: ServerFlags = None,
) -> None:
    """Send a server thousands of requests made from its own OpenAPI document, uploads included.

    A server of a tiny random model is started for it. The exit status is 1 if an answer was a 5xx or was not documented, or if a process
    died; each such request is printed as a curl.

    Example: atspeed-bench fuzz --cases 500 --seed 3
    """
    require("httpx", "schemathesis", "pyarrow")
    from benchmarks.fuzz.run import fuzz as run

    with sentences(), tempfile.TemporaryDirectory(prefix="atspeed-fuzz-") as folder:
        found = run(Path(folder), cases, seed, tuple(flags or ()))
    typer.echo(f"{found.cases} cases over {found.operations} operations, seeds {', '.join(map(str, found.seeds))}.")
    if found.failures:
        fail("\n".join(found.failures))
