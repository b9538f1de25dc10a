"""Values that are lists: what they mean, and what is said of others."""

import pytest
import typer

from server.commands.values import chosen, some_words, whole_numbers, words


def test_spaces_and_commas_too_many_mean_nothing() -> None:
    assert words(" a b, c,,d ,") == ["a b", "c", "d"]
    assert words(" , ") == []


def test_a_list_of_nothing_is_said_where_some_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert some_words("--only", "a,b") == ["a", "b"]
    with pytest.raises(typer.Exit):
        some_words("--only", " ,")
    assert capsys.readouterr().err == "--only takes names, separated by commas, got ' ,'.\n"


def test_numbers_come_once_where_their_place_means_nothing() -> None:
    assert whole_numbers("--k", "10, 5,10") == [10, 5]
    assert whole_numbers("--k", "10, 5,10", repeats=True) == [10, 5, 10]


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1e3", "1_0", "\u00b2", "5,many", "21"])
def test_what_are_no_numbers_is_said(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        whole_numbers("--k", text, most=20)
    assert capsys.readouterr().err == f"--k takes whole numbers from 1 to 20, separated by commas, got {text!r}.\n"


def test_names_are_chosen_once_each_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen("fruit", "fig, pear,fig", ["pear", "fig"]) == ["fig", "pear"]
    assert chosen("fruit", "none", ["fig"], or_none=True) == []
    for text, unknown in (("fig,kiwi", "kiwi"), ("none", "none"), ("", "")):
        with pytest.raises(typer.Exit):
            chosen("fruit", text, ["fig", "pear"])
        assert capsys.readouterr().err == f"There is no fruit {unknown!r}: choose fig, pear.\n"
    with pytest.raises(typer.Exit):
        chosen("fruit", "none,fig", ["fig"], or_none=True)
    assert capsys.readouterr().err == "There is no fruit 'none': choose fig, or none.\n"
