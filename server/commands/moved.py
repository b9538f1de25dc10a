"""The commands that moved to `atspeed-bench`: for one release the old names say so.

Invariant: an old name changes nothing and exits with 2, so that a script that still uses it notices.
"""

import typer

from server.commands.terminal import fail

MOVED = ("bench", "load", "replay")


def _add(app: typer.Typer, name: str) -> None:
    def moved(context: typer.Context) -> None:
        fail(f"`atspeed {name}` is `atspeed-bench {name}` now, with the same options.", status=2)

    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name, hidden=True, context_settings=anything)(moved)


def add_moved(app: typer.Typer) -> None:
    """Give `app` a hidden command for each name in `MOVED`."""
    for name in MOVED:
        _add(app, name)
