"""`atspeed-bench soak`: a server that is harmed under load."""

from pathlib import Path
from shutil import which
from typing import Annotated

import typer

from benchmarks.endings import require, sentences
from benchmarks.load.command import Out, ServerFlags
from server.commands.terminal import fail


def soak(
    out: Out = Path("docs/results"),
    seconds: Annotated[float, typer.Option(help="Length of all phases together, without the proofs after each.", min=60)] = 1800.0,
    rate: Annotated[float, typer.Option(help="Requests of users a second.", min=0.1)] = 12.0,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", min=0)] = 0,
    flags: ServerFlags = None,
) -> None:
    """Load a server while its engine hangs, both processes are killed, the disk is full and Redis is slow (idle machine, 45 minutes).

    Nothing that the server has acknowledged may be missing afterwards: events, versions, items, activations, filters. No key/value slot
    may be left, neither process may have grown by more than 2 %, and the server's OpenAPI document must know every answer. The exit status
    is 1 if one of these promises was broken. To fill a disk takes root rights. Writes `soak.json` and `soak.png`.

    Example: atspeed-bench soak --seconds 180 --out .
    """
    require("httpx", "hdrh", "jsonschema", "matplotlib")
    if which("redis-server") is None:
        fail("This needs a redis-server: apt-get install redis-server.")
    from benchmarks.soak.run import SoakPlan, run

    with sentences():
        broken = run(out, SoakPlan(seconds=seconds, rate=rate, seed=seed, flags=tuple(flags or ())))
    if broken:
        fail("\n".join(broken))
