"""What is told of errors that libraries raise."""

import runpy
from pathlib import Path

import pytest

from drafting.errors import first_line


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("where:\n  what\nmore"), "where: what"),
        (ValueError(" \n"), "ValueError"),
        (AssertionError("one"), "one"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_the_first_line_of_the_message_or_the_name_of_the_class(error: Exception, told: str) -> None:
    assert first_line(error) == told


def test_what_a_library_asserts_without_a_message(tmp_path: Path) -> None:
    library = tmp_path / "library.py"
    library.write_text("heads = 3\nassert heads % 2 == 0\n")
    with pytest.raises(AssertionError) as raised:
        runpy.run_path(str(library))
    assert first_line(raised.value) == "heads % 2 == 0"
