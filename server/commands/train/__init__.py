"""`atspeed train`: teach models to write a catalog's identifiers."""

import typer

from server.commands.train.draft import draft
from server.commands.train.target import target
from server.commands.train.teacher import teacher

train_app = typer.Typer(help="Train models for a catalog.", no_args_is_help=True)
train_app.command()(target)
train_app.command()(teacher)
train_app.command()(draft)


@train_app.callback()
def train() -> None:
    """Train models for a catalog: a target, what it teaches, and the drafts that learn from it."""
