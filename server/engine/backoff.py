"""`Backoff`: the pauses before a process that has ended is started again.

Invariant: a pause depends on the starts just before it, and on nothing older. Reason: each start that fails makes the next one less urgent,
but a process that has run for long has shown that it can, and clients should not wait because of trouble that is days old.
"""

from dataclasses import dataclass

# A process that ran for so long was healthy: after its end the first pause is as short as ever.
HEALTHY_SECONDS = 60.0


@dataclass
class Backoff:
    """Each pause is twice as long as the last, up to the longest, until a process has run for long.

    Attributes:
        seconds: the newest pause; 0 before the first.
    """

    first_seconds: float
    longest_seconds: float
    seconds: float = 0.0

    def after(self, ran_seconds: float) -> float:
        """The pause in seconds before the next start, where the process has run for so long."""
        if ran_seconds > HEALTHY_SECONDS:
            self.reset()
        self.seconds = min(max(2 * self.seconds, self.first_seconds), self.longest_seconds)
        return self.seconds

    def reset(self) -> None:
        """Forget the starts so far."""
        self.seconds = 0.0
