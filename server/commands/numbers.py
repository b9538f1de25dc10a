"""Lists of numbers on the command line."""

import typer


def whole_numbers(text: str, option: str) -> list[int]:
    """The whole numbers from 1 on that an option names, separated by commas.

    Raises:
        typer.BadParameter: it names something else.
    """
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise typer.BadParameter(f"{option} takes whole numbers from 1 on, separated by commas, got {text!r}.")
    return numbers
