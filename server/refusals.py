"""What the API process raises where it can't hand a request to the engine, or the engine can't do it.

Invariant: the message is a sentence for the client and names nothing of the server's inside; what may succeed later says when.
"""


class TryAgainError(RuntimeError):
    """A request that may succeed later; the message is a sentence.

    Attributes:
        retry_after_seconds: when asking again is worth a try.
    """

    def __init__(self, sentence: str, retry_after_seconds: int) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


class EngineUnavailable(TryAgainError):
    """There is no engine at the moment."""


class QueueFullError(TryAgainError):
    """More requests wait than the server is told to hold."""


class TooLateError(TryAgainError):
    """The list would not be ready in time, or would make others late, so it is not begun."""


class RequestRefusedError(ValueError):
    """The engine can't do this request; the message is a sentence."""


class CatalogRefused(Exception):
    """A catalog that can't be served; the message is a sentence."""
