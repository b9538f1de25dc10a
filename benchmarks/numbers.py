"""Lists of numbers on the command line."""

import typer


def whole_numbers(text: str, option: str) -> list[int]:
    """The distinct positive integers in the value of an option, separated by commas.

    Raises:
        typer.BadParameter: the text is something else.
    """
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise typer.BadParameter(f"{option} takes whole numbers from 1 on, separated by commas, got {text!r}.")
    return list(dict.fromkeys(numbers))
