"""The way of a request to the engine and back, whatever it asks for: a list, or scores.

Invariant: a request is judged before its history is read, because under overload no request should wait for the store only to be refused
then. Each request that is refused because of others is counted once.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np

from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from server.catalogs.served import ServedCatalog
from server.errors import RequestRefused
from server.lists.user_reader import UserReader
from server.lists.users import KnownUser
from server.messages import FinishedList, Ready
from server.scheduling.pending import PendingRequest
from server.schemas.given import AskedUser
from server.services import Services
from server.submit import Submit
from server.try_again import Overloaded


class Asking:
    """Asks the engine for users."""

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._users = UserReader(services.histories, services.metrics, services.settings.history_timeout_ms / 1000)
        self._metrics = services.metrics
        self._tracing = services.tracing

    @property
    def ready(self) -> Ready:
        """What the engine has told of itself; raises EngineUnavailable where there is none."""
        ready = self._engine.supervisor.ready
        if ready is None:
            raise self._engine.supervisor.unavailable()
        return ready

    @contextmanager
    def admitted(self, body: AskedUser, submit: Submit) -> Iterator[PendingRequest]:
        """A request that has been let in, for as long as it is being answered.

        Raises:
            EngineUnavailable: there is no engine.
            Overloaded: it is refused because of others; see `server.scheduling.admission`.
        """
        items = len(body.history or ()) if body.user_id is None else None
        try:
            with self._engine.admit(submit, items, traced=self._is_traced) as request:
                yield request
        except Overloaded as error:
            self._metrics.refused.inc(1, error.reason)
            raise

    async def read_user(
        self, body: AskedUser, served: ServedCatalog, submit: Submit, builder: PromptBuilder, window: int = 0, *, whole: bool = False
    ) -> KnownUser:
        """What is known of the user; fills in the history. See `UserReader.read`."""
        with self._tracing.part("history") if self._tracing.on else nullcontext():
            user = await self._users.read(body, served, builder, submit.deadline, window, whole=whole, thinks=submit.think > 0)
        submit.history = [event.item for event in user.state.events[-self.ready.max_items - 1 :]]
        return user

    def write_prompt(self, user: KnownUser, submit: Submit, builder: PromptBuilder) -> None:
        """Fill in the prompt; raises RequestRefused where none can be made of what is known of the user."""
        try:
            submit.prompt = builder.build(user.state, thinks=submit.think > 0).astype(np.int32).tobytes()
        except PromptError as error:
            raise RequestRefused(str(error)) from error
        finally:
            if submit.user is None and user.state.user_id is not None:
                # They were deleted after they had been read: the builder may have kept the text of their prompt.
                builder.forget(user.state.user_id)
        submit.submitted = time.monotonic()

    async def answer(self, request: PendingRequest) -> FinishedList:
        """What the engine says, with its part of the trace.

        Raises:
            TimeoutError: the request's deadline passed while the engine had it.
            ServerError: as `EngineClient.search`.
        """
        async with asyncio.timeout(request.submit.deadline - request.submit.submitted):
            finished = await self._engine.search(request)
        if self._is_traced:
            self._tracing.record_engine(finished, request.own_steps(finished))
        return finished

    @property
    def _is_traced(self) -> bool:
        return self._tracing.on and self._tracing.recording
