"""The client of a soak: each answer is counted, and judged by the OpenAPI document that the server itself serves.

Invariant: a request ends with an answer, with a client that hung up on purpose, or with a server that is down because the soak killed it;
anything else is a broken promise.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from benchmarks.load.target import Target
from benchmarks.soak.answers import Answers, NoAnswer, Promise
from benchmarks.soak.api_document import ApiDocument
from benchmarks.soak.trial import Trial

# Longer than any deadline that a request may have, and than an engine takes to be replaced.
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    """One answer: its status, and its body if that is JSON."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """True if it says that what was asked has been done."""
        return 200 <= self.status < 300


class SoakClient:
    """Asks one server, through its restarts."""

    def __init__(self, trial: Trial, answers: Answers) -> None:
        self._trial = trial
        self._answers = answers
        self._target = Target(trial.url)
        self._document: ApiDocument | None = None

    async def read_document(self) -> None:
        """Take the server's document; a server that was started again may have another."""
        response = await self._target.ask("GET", f"{self._trial.url}/openapi.json")
        self._document = ApiDocument(response.json())

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes = b"",
        *,
        operation: str | None = None,
        content_type: str = "application/json",
        user: str | None = None,
        patience: float = PATIENCE_SECONDS,
        hangs_up: bool = False,
    ) -> Answer | None:
        """Ask and count what came; None without an answer.

        Args:
            operation: name to count it under; method and path by default.
            patience: seconds after which the client gives up, on purpose if `hangs_up`.
        """
        name = operation or f"{method} {path}"
        encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                response = await self._target.ask(method, f"{self._trial.url}{path}", encoded, user, content_type)
        except (TimeoutError, httpx.TransportError) as error:
            self._note_silence(name, began, error, hangs_up=hangs_up and isinstance(error, TimeoutError))
            return None
        self._answers.count(name, response.status_code)
        if self._document is not None:
            self._answers.complain(Promise.DOCUMENTED, self._document.complaint(response))
        is_json = response.headers.get("content-type", "").partition(";")[0].endswith("json")
        return Answer(response.status_code, msgspec.json.decode(response.content) if is_json else None)

    async def close(self) -> None:
        """Close the connections."""
        await self._target.close()

    def _note_silence(self, name: str, began: float, error: Exception, *, hangs_up: bool) -> None:
        if hangs_up:
            self._answers.count(name, NoAnswer.HUNG_UP)
        elif self._trial.was_down(began):
            self._answers.count(name, NoAnswer.API_DOWN)
        else:
            self._answers.count(name, NoAnswer.UNANSWERED)
            self._answers.complain(Promise.ANSWERED, f"{name} got no answer of a server that lived: {type(error).__name__}.")
