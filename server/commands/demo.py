"""`atspeed demo`: from nothing to a server that recommends films to real users."""

import subprocess
import sys
import threading
from typing import Annotated

import typer

from server.commands.options import default, setting
from server.commands.terminal import fail, failing_on

DEMO_USER = "42"


def demo(
    port: Annotated[int, setting("port", help="Port to listen on.", min=1, max=65_535)] = default("port"),
    engine: Annotated[str, setting("engine")] = default("engine"),
    prepare_only: Annotated[bool, typer.Option("--prepare-only", help="Prepare everything and stop before the server.")] = False,
) -> None:
    """Try it on MovieLens 100k: downloads it, trains a small target, and serves recommendations to its real users, with the console.

    The first run works for about three minutes on two cores and keeps what it made under ~/.cache/atspeed (or ATSPEED_CACHE); later ones
    only start the server.
    """
    from drafting.cache import cache_directory
    from server.demo.preparation import Demo, DemoSettings, read_evaluation
    from server.http.console import is_installed
    from server.settings import FlagSettings, SettingsError

    settings = DemoSettings()
    prepared = Demo.of(cache_directory(), settings)
    with failing_on(SettingsError):
        serving = FlagSettings.resolve(
            target=prepared.target,
            catalog=prepared.catalog,
            codebooks=prepared.codebooks,
            histories=f"sqlite:///{prepared.histories.absolute()}",
            engine=engine,
            port=port,
            console=is_installed(),
            console_port=0,
            log_level="warning",
        )
    if not prepare_only:
        _check_port(port)
    if prepared.complete:
        typer.echo(f"The demo is prepared already, in {prepared.folder}.")
    else:
        _prepare()
    typer.echo("\n" + read_evaluation(prepared).sentence + "\n")
    if prepare_only:
        return
    from server.http.listening import url_of
    from server.http.server import run_server

    url = url_of("http", serving.host, port)
    typer.echo(f"Starting the server on {url} …")
    threading.Thread(target=_present, args=(url, settings.k, serving.console), daemon=True).start()
    if sentence := run_server(serving):
        fail(sentence)


def _prepare() -> None:
    try:
        done = subprocess.run([sys.executable, "-m", "server.demo"], check=False)
    except KeyboardInterrupt:
        fail("Interrupted: the next run goes on from here.")
    if done.returncode < 0:
        # It could say nothing itself.
        fail(f"The preparation was killed (signal {-done.returncode}), for lack of memory perhaps: the next run goes on from here.")
    if done.returncode:
        raise typer.Exit(done.returncode)


def _check_port(port: int) -> None:
    """Find out before minutes of preparation that the server could not start after them."""
    from server.http.listening import PortError, listen

    with failing_on(PortError):
        listen("127.0.0.1", port).close()


def _present(url: str, k: int, has_console: bool) -> None:
    from server.client import AtspeedError
    from server.demo.showcase import show, wait_until_ready

    try:
        wait_until_ready(url)
        typer.echo(show(url, DEMO_USER, k))
    except AtspeedError as error:
        typer.secho(f"The server did not answer the demo's own request: {error}", err=True, fg=typer.colors.RED)
        return
    if has_console:
        typer.echo(f"Look at lists in the browser: {url}/console?user={DEMO_USER}")
    typer.echo(f"The API is described at {url}/docs. Press Ctrl-C to stop.")
