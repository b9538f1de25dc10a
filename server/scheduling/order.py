"""The order in which requests are taken up: by when they are due.

Invariant: no request starves. One that has waited for `AGEING_SECONDS` is due before all that arrive after that moment, however urgent they
are; only those that arrived earlier can stand in front of it, and they are finitely many. The engine process takes requests up by this
order, and the API process foresees their waits by it.
"""

AGEING_SECONDS = 2.0


def due(deadline: float, arrived: float) -> float:
    """The time that a request's position in the queue follows from, on the clock of both."""
    return min(deadline, arrived + AGEING_SECONDS)
