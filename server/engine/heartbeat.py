"""The engine's silence: for how long it has given no sign of life, and when that is taken for a hang.

Signs of life come from the engine's own loop, between two steps or while it waits for messages, and before each part of its start: a thread
that beats while the loop hangs would prove nothing. So the longest step is the longest silence of an engine that works.

Invariant: only time in which this process itself was awake counts. Reason: a process that was paused, alone or with its machine, finds old
news when it comes back, and must not take its own absence for the engine's.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from server.messages import Alive, FromEngine, Progress, Ready
from server.ticks import TICK_SECONDS, until_tick

LOOK_TICKS = 5
LOOK_SECONDS = LOOK_TICKS * TICK_SECONDS
# The longest step is foreseen from a measurement, which may be off: this much is granted, and so much at most.
STEP_CAUTION = 4.0
MOST_PATIENCE = 10.0
SUSPICIOUS = 0.3


@dataclass(frozen=True)
class Patience:
    """How long an engine may be silent, in seconds.

    Attributes:
        hang: while it serves, if its longest step is short.
        start: while it starts.
    """

    hang: float = 30.0
    start: float = 1800.0


@dataclass
class Heartbeat:
    """The silence of one engine process; times are seconds of a clock that the caller reads.

    Attributes:
        looked: time at which the silence was last looked at.
        doing: what the engine said last that it does.
        silence: seconds without a sign of life.
        bound: the silence that is taken for a hang.
        not_finite: lists that have failed since the last finished one because their scores were not finite.
    """

    patience: Patience
    looked: float
    doing: str = "starting"
    silence: float = 0.0
    not_finite: int = 0
    bound: float = field(init=False)

    def __post_init__(self) -> None:
        self.bound = self.patience.start

    def heard(self, message: FromEngine) -> None:
        """Note a sign of life; every message is one."""
        self.silence = 0.0
        match message:
            case Alive(doing):
                self.doing = doing
            case Progress(finished=finished, failed=failed):
                self.not_finite = 0 if finished else self.not_finite + sum(each.not_finite for each in failed)
            case Ready(longest_step_seconds=longest):
                self.doing = "serving"
                self.bound = min(max(self.patience.hang, STEP_CAUTION * longest), MOST_PATIENCE * self.patience.hang)

    def look(self, now: float) -> None:
        """Add up the silence since the last look, of which there should be one every `LOOK_SECONDS`."""
        self.silence += min(now - self.looked, 2 * LOOK_SECONDS)
        self.looked = now

    @property
    def suspect(self) -> bool:
        """True if it has been silent for so long that clients had better ask another server."""
        return self.silence > SUSPICIOUS * self.bound

    @property
    def hung(self) -> bool:
        """True if it has been silent for longer than any work takes."""
        return self.silence > self.bound

    @property
    def sentence(self) -> str:
        """What is wrong, for the log."""
        return f"has given no sign of life for {self.silence:.0f} s while {self.doing}"


async def watch(heartbeat: Heartbeat, others: "set[asyncio.Future[Any]]", tell: Callable[[float], None]) -> bool:
    """Watch the silence until the engine hangs (true) or one of the others is done (false).

    Args:
        tell: called with each look's silence.
    """
    loop = asyncio.get_running_loop()
    while not (await asyncio.wait(others, timeout=until_tick(LOOK_TICKS), return_when=asyncio.FIRST_COMPLETED))[0]:
        heartbeat.look(loop.time())
        tell(heartbeat.silence)
        if heartbeat.hung:
            return True
    return False
