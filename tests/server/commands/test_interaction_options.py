"""Options of commands that read interactions: what a sentence names is there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import drafting.preparation
from server.commands.app import app

ROOM = Path(drafting.preparation.__file__).parent
# What reads interactions; of `run.py`, some functions. The rest is done by `atspeed prepare` alone.
READING = ("columns", "delimited", "events", "json_rows", "layouts", "rows", "sources", "streams", "tables", "times")
READING_OF_RUN = ("read_events", "_told", "with_dates", "_with_whole_numbers")
# Of other commands, in the table at the end.
ELSEWHERE = {"--keep-seen"}


def flags(file: Path, functions: tuple[str, ...] = ()) -> Iterator[str]:
    """The flags that the sentences of a file, or of some of its functions, name."""
    tree = ast.parse(file.read_text())
    nodes = [node for node in tree.body if not functions or (isinstance(node, ast.FunctionDef) and node.name in functions)]
    assert len(functions) in (0, len(nodes))
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield from re.findall(r"--[a-z]+(?:-[a-z]+)*", part.value)


def options(*names: str) -> set[str]:
    command = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {opt for parameter in command.params for opt in parameter.opts}


def test_every_flag_that_a_sentence_about_data_names_is_one_of_the_command_that_says_it() -> None:
    named = {flag for file in ROOM.glob("*.py") for flag in flags(file)}
    assert {"--columns", "--delimiter", "--encoding", "--no-quotes", "--time-format"} < named
    assert named - ELSEWHERE <= options("prepare")
    reading = {flag for name in READING for flag in flags(ROOM / f"{name}.py")} | set(flags(ROOM / "run.py", READING_OF_RUN))
    # It can't be asked for where histories are imported, so nothing is said of it.
    assert reading - {"--min-rating"} <= options("histories", "import")


@pytest.mark.parametrize("role", ["user", "item", "time", "rating", "kind"])
def test_columns_that_a_sentence_asks_for_by_their_role_can_be_named(role: str) -> None:
    assert f"--{role}" in options("prepare") & options("histories", "import")
