"""Values of the command line that are lists, separated by commas.

Invariant: spaces around a comma, and a comma too many, mean nothing; what is wrong ends the command with a sentence that names the flag or
the choices.
"""

from collections.abc import Collection

from server.commands.terminal import fail


def words(text: str) -> list[str]:
    """The parts of a value."""
    return [part.strip() for part in text.split(",") if part.strip()]


def some_words(flag: str, text: str) -> list[str]:
    """The parts of a value, at least one of them: a list of nothing would be a run that looks at nothing."""
    if not (found := words(text)):
        fail(f"{flag} takes names, separated by commas, got {text!r}.")
    return found


def whole_numbers(flag: str, text: str, most: int | None = None, *, repeats: bool = False) -> list[int]:
    """The whole numbers of a value, at least one of them.

    Args:
        flag: named where the value is something else.
        most: largest number that is allowed; None for any.
        repeats: True keeps numbers that come again, where each place means something.
    """
    parts = words(text)
    # int() also takes signs, and underlines between digits.
    numbers = [int(part) if part.isdecimal() else 0 for part in parts]
    if not numbers or min(numbers) < 1 or (most is not None and max(numbers) > most):
        up_to = "on" if most is None else f"to {most}"
        fail(f"{flag} takes whole numbers from 1 {up_to}, separated by commas, got {text!r}.")
    return numbers if repeats else list(dict.fromkeys(numbers))


def chosen(what: str, text: str, among: Collection[str], *, or_none: bool = False) -> list[str]:
    """The names of a value, each once, at least one of them.

    Args:
        what: said where a name is none of `among`.
        or_none: True if `none` alone chooses nothing.
    """
    names = list(dict.fromkeys(words(text)))
    if or_none and names == ["none"]:
        return []
    unknown = next((name for name in names if name not in among), None if names else text)
    if unknown is not None:
        fail(f"There is no {what} {unknown!r}: choose {', '.join(among)}{', or none' if or_none else ''}.")
    return names
