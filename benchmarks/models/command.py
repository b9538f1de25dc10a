"""`atspeed-bench models`: which families of transformers give the right lists, on both hosts."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.endings import sentences
from benchmarks.options import in_a_directory
from server.commands.terminal import fail

HOSTS = "transformers,vllm"


def models(
    families: Annotated[
        str | None,
        typer.Option("--only", help="Families or family/variant, separated by commas; * stands for any text.", show_default="all"),
    ] = None,
    engines: Annotated[str, typer.Option(help="Hosts to try, separated by commas; vLLM only where it is installed.")] = HOSTS,
    work: Annotated[Path, typer.Option(help="Directory of checkpoints, logs and cells; what is there is not computed again.")] = Path(
        "build/models"
    ),
    page: Annotated[Path | None, typer.Option(help="Write the table to this file.", dir_okay=False, callback=in_a_directory)] = None,
    seconds: Annotated[float, typer.Option(help="Limit for each step of a cell.", min=1)] = 240,
) -> None:
    """Compare tiny random checkpoints of all families with transformers' own constrained `generate` (an hour, resumable).

    Prints every cell that is neither equal nor refused in a sentence; the exit status is 1 if there is one.

    Example: atspeed-bench models --only 'qwen*,gemma3_text/windows' --engines transformers
    """
    from benchmarks.models.report import report
    from benchmarks.models.run import hosts_here, run
    from benchmarks.models.variants import choose

    with sentences():
        chosen = choose(families.split(",") if families else ())
        if not chosen:
            raise typer.BadParameter(f"no variant is like {families!r}.")
        hosts = hosts_here(engines.split(","))
        cells = run(chosen, hosts, work, seconds)
        if page is not None:
            page.write_text(report(cells, hosts))
    for host in hosts:
        of_host = [cell for cell in cells if cell.host == host]
        equal, refused = (sum(cell.outcome == outcome for cell in of_host) for outcome in ("equal", "refused"))
        typer.echo(f"{host}: {equal} equal, {refused} refused, {len(of_host) - equal - refused} failed.")
    if wrong := [f"{cell.variant} on {cell.host}: {cell.outcome}, {cell.detail}" for cell in cells if not cell.is_right]:
        fail("\n".join(wrong))
