"""The base class of errors in the user's input: a wrong file, a wrong name, parts that do not belong together.

Invariant: the message of a `SetupError` is one sentence that names the mistake and can be printed as it is.
"""


class SetupError(ValueError):
    """An input cannot be used; the message is a sentence."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error message, or the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
