"""The root of every error that a user can mend before anything runs: a wrong file, a wrong name, parts that do not fit together.

Invariant: the message of a `SetupError` is one sentence that names what is wrong, fit to be printed as it is.
"""


class SetupError(ValueError):
    """Something that was given cannot be used; the message is a sentence."""
