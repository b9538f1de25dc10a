"""All commands of `atspeed` under one name.

Invariant: this module and the commands' modules import nothing heavy, so that `--help` and a typing mistake are answered at once; what a
command needs, it imports when it runs.
"""

import typer

from server.commands.catalog import catalog_app
from server.commands.console import console
from server.commands.control import control_app
from server.commands.demo import demo
from server.commands.evaluate import evaluate
from server.commands.histories import histories_app
from server.commands.keys import keys_app
from server.commands.neighbours import neighbours_app
from server.commands.prepare import prepare
from server.commands.recommend import recommend
from server.commands.serve import serve
from server.commands.train import train_app

app = typer.Typer(
    name="atspeed",
    help="Generative recommendation by exact beam search over a catalog, served fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(console)
app.command()(recommend)
app.command()(prepare)
app.add_typer(catalog_app, name="catalog")
app.add_typer(histories_app, name="histories")
app.add_typer(keys_app, name="keys")
app.add_typer(control_app, name="control")
app.add_typer(train_app, name="train")
app.add_typer(neighbours_app, name="neighbours")
app.command()(demo)
app.command()(evaluate)
