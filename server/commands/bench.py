"""`atspeed bench`: this engine against vLLM and transformers on one checkpoint."""

import json
import os
import platform
import tempfile
from contextlib import ExitStack
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.failure import fail

WARM_UP = 3
OVERHEAD_REQUESTS = 100
OVERHEAD_K = 10

if TYPE_CHECKING:
    from verification.benchmark.interleaved import Row


def bench(
    target: Annotated[Path | None, typer.Option(help="Model directory; without one, a random model of --shape is made.")] = None,
    catalog: Annotated[Path | None, typer.Option(help="Catalog of the model, needed with --target.")] = None,
    shape: Annotated[str, typer.Option(help="Random model and catalog: small (3.7M parameters) or tiny.")] = "small",
    k: Annotated[str, typer.Option(help="List lengths, separated by commas.")] = "1,5,10,20",
    requests: Annotated[int, typer.Option(min=1, help="Timed requests per system and list length.")] = 30,
    items: Annotated[int, typer.Option(min=1, help="Items per history: 20 items of 4 tokens make a prompt of 80.")] = 20,
    threads: Annotated[int | None, typer.Option(help="CPU threads per system; all cores by default.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")] = None,
    force: Annotated[bool, typer.Option(help="Measure although the machine is busy.")] = False,
) -> None:
    """Time plain beam search against vLLM's and transformers' on one checkpoint, interleaved, on an idle machine."""
    from tqdm import tqdm

    from drafting.catalog import Catalog
    from server.measured_server import MeasuredServer
    from verification.benchmark.interleaved import BUSY_SHARE, Measured, SystemFailedError, SystemProcess, busy_share, compare
    from verification.benchmark.shapes import SHAPES, make_catalog, make_checkpoint

    if (target is None) != (catalog is None):
        raise typer.BadParameter("--target and --catalog go together.")
    if shape not in SHAPES:
        raise typer.BadParameter(f"there is no shape {shape!r}: choose {', '.join(SHAPES)}.")
    busy = busy_share()
    if busy > BUSY_SHARE and not force:
        fail(f"Other work takes {busy:.0%} of this machine: timings would mean nothing. Wait, or use --force.")
    ks = _numbers(k)
    cores = threads or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        if target is None or catalog is None:
            target, catalog = Path(folder) / "model", Path(folder) / "catalog.jsonl"
            made = make_catalog(SHAPES[shape])
            made.save(catalog)
            make_checkpoint(target, SHAPES[shape], made)
        names = ["atspeed/transformers", "transformers"]
        if find_spec("vllm"):
            names = ["atspeed/vllm", *names, "vllm"]
        systems: list[Measured] = []
        for name in names:
            systems.append(SystemProcess(name, target, catalog, cores))
            running.callback(systems[-1].close)
        server = MeasuredServer("atspeed/http", target, catalog, names[0].rpartition("/")[2], cores, Path(folder))
        systems.append(server)
        running.callback(server.close)
        try:
            for system in tqdm(systems, desc="Loading", unit="system"):
                system.wait_ready()
            histories = _histories(len(Catalog.load(catalog)), requests + WARM_UP, items)
            with tqdm(total=len(ks) * len(histories) * len(systems), desc="Timing", unit="request", miniters=10) as bar:
                rows = compare(systems, histories, ks, WARM_UP, bar.update)
            server.overhead_seconds.clear()
            for _ in tqdm(range(OVERHEAD_REQUESTS), desc="Back to back", unit="request"):
                server.search(histories[0], OVERHEAD_K)
        except SystemFailedError as error:
            fail(str(error))
    _print(rows, cores)
    overhead_ms = 1e3 * median(server.overhead_seconds)
    typer.echo(f"HTTP, queue and history store add {overhead_ms:.1f} ms at p50 (k = {OVERHEAD_K}, asked back to back).")
    if json_file is not None:
        report = {"rows": [row.as_dict() for row in rows], "http_overhead_p50_ms": overhead_ms, "threads": cores, "date": str(date.today())}
        json_file.write_text(json.dumps(report, indent=2) + "\n")


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise typer.BadParameter(f"--k takes whole numbers from 1 on, separated by commas, got {text!r}.")
    return numbers


def _histories(items: int, count: int, length: int) -> list[list[int]]:
    import numpy as np

    rng = np.random.default_rng(0)
    return [rng.integers(items, size=length).tolist() for _ in range(count)]


def _print(rows: "list[Row]", threads: int) -> None:
    from rich.console import Console
    from rich.table import Table

    fastest = {row.k: row.p50_ms for row in reversed(rows) if row.system == rows[0].system}
    table = Table(title=f"{date.today()}, {platform.machine()}, {threads} threads; one request at a time, no cache")
    for column in ("k", "system", "p50 ms", "p99 ms", "forwards", "tokens", "lists equal", "p50 / first"):
        table.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
    for row in rows:
        cells = (f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}", f"{row.target_forwards:.1f}", f"{row.tokens:.0f}" if row.tokens else "")
        table.add_row(str(row.k), row.system, *cells, row.lists_equal, f"{row.p50_ms / fastest[row.k]:.2f}")
    # A pipe has no width of its own, and a table cut to 80 columns loses its figures.
    console = Console()
    (console if console.is_terminal else Console(width=110)).print(table)
