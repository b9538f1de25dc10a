"""`atspeed console`: a server in the browser."""

from typing import Annotated

import typer

from server.commands.options import default, setting
from server.commands.terminal import failing_on


def console(
    url: Annotated[str, typer.Option(help="URL of the server, such as http://127.0.0.1:8000.")] = "http://127.0.0.1:8000",
    host: Annotated[str, setting("host")] = default("host"),
    port: Annotated[int, setting("console_port", min=0, max=65_535)] = default("console_port"),
    remote_images: Annotated[
        bool, typer.Option("--remote-images", help="Let browsers load the pictures that the catalog names from other hosts.")
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which browsers find the console, as behind a proxy, beside those of its own machine; repeat it for more.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Look at a server in the browser: try lists, see why they are so, operate it, look up items.

    Example: atspeed console --url http://recommender.internal:8000 --port 8001

    It asks the server as any client does, and needs the extra `console`. Of a server with keys it asks for one in the browser, unless
    ATSPEED_KEY holds one, or ATSPEED_KEY_FILE names its file: then who can reach the console can do what that key is good for. It
    listens on this machine alone unless --host says otherwise, and then answers to names of this machine and those of --name alone, or
    any page could have its own name lead here. `atspeed serve --console` starts one beside the server.
    """
    from server.client.origin import RETRIES, TIMEOUT_SECONDS, Origin
    from server.console.names import checked_names
    from server.http.console import check_installed
    from server.http.listening import PortError, listen, url_of
    from server.settings import ConsoleOptions

    with failing_on(ValueError, PortError):
        check_installed()
        # As each visit makes one of them.
        Origin(url, None, None, TIMEOUT_SECONDS, RETRIES)
        names = checked_names(name or ())
        listener = listen(host, port)
    from server.console.process import run_console

    address = url_of("http", host, listener.getsockname()[1])
    typer.echo(f"The console of {url} is at {address}. Press Ctrl-C to stop.")
    run_console(ConsoleOptions(url=url, remote_images=remote_images, names=names), listener)
