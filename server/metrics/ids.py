"""Ids of requests and lists, by which they are found in answers, logs and traces.

Invariant: no two are alike. They can be foreseen by a client that sees many, so no id gives access to anything. What must not be guessed is
made of `secrets`, which asks the system each time and takes longer than most parts of a request.
"""

import random


def new_id() -> str:
    """32 hexadecimal digits."""
    # This generator is seeded by the system, in each process that is forked as well.
    return f"{random.getrandbits(128):032x}"
