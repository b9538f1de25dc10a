"""`RedisControlStore`: the control store in Redis (one server, Sentinel or Cluster), for replicas on several machines.

Its keys are in the same slot of a Redis Cluster because of their common hash tag, so each script is atomic there too:

    {prefix}:state     hash    generation, revision, write_id and log_bytes; ":" + key with the value of each key
    {prefix}:log       stream  entry REVISION-1 for each of the newest writes: write_id, size, at, by, then "+" + key with its value or
                               "-" + key with nothing
    {prefix}:moves     stream  the newest write again, without its changes, for those who wait
    {prefix}:looks     string  written whenever the position or the log is read, if replicas of Redis must confirm
    {prefix}:replicas  hash    the name of each replica with the milliseconds until which it lives, and its announcement

Invariant: position and values are one key, so a Redis that evicts keys or loses its memory loses the state as a whole or not at all.

Redis acknowledges a write before its replicas have it, so a failover may lose the last acknowledged writes. With `?wait_replicas=N` a
write is acknowledged when N replicas of Redis have it. Where N is all of them, whichever Sentinel promotes has what was acknowledged, and a
master that has been replaced and does not know it can acknowledge nothing, as the one that was promoted no longer listens to it. Positions
and the log are then read by scripts that write as well, and told when as many replicas have that: so nothing is told that may be lost, and
nobody takes the word of a master that has been replaced for what there is.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.control.base import Limits, Position, Replica, State, Write, random_name
from server.control.redis_scripts import ANNOUNCE, BEGIN, LOG, LOOK, REPLICAS, WRITE
from server.redis.access import RedisAccess
from server.try_again import ControlConflict, ControlFull, ControlUnavailable

# Those who wait hold a connection meanwhile.
_CONNECTIONS = 32
# The stream does not tell of a write that has the revision of a lost one, nor of a state that is gone, so the position is read so often.
_LOOK_SECONDS = 0.5
# Shares of an operation's time that small commands may take: by them a server that stands still is noticed early.
_LOOK_SHARE, _CONFIRM_SHARE = 0.3, 0.2
_POSITION = ("generation", "revision", "write_id")


class RedisControlStore:
    """A `ControlStore` in the Redis at `url`, which may be down at any time. Raises ValueError for a URL that cannot be used."""

    def __init__(self, url: str, limits: Limits, key_prefix: str = "atspeed:control") -> None:
        self._limits = limits
        self._access = RedisAccess(url, limits.timeout_seconds, _CONNECTIONS, "the control store", ControlUnavailable, ControlFull)
        self._redis = self._access.client
        names = ("state", "log", "moves", "looks", "replicas")
        self._state, self._log, self._moves, self._looks, self._replicas = (f"{{{key_prefix}}}:{name}" for name in names)
        self._begin_script = self._redis.register_script(BEGIN)
        self._write_script = self._redis.register_script(WRITE)
        self._look_script = self._redis.register_script(LOOK)
        self._log_script = self._redis.register_script(LOG)
        self._announce_script = self._redis.register_script(ANNOUNCE)
        self._replicas_script = self._redis.register_script(REPLICAS)

    async def create(self, values: Mapping[str, bytes]) -> State:
        return await self._begin(values, 0, is_new=True)

    async def replace(self, values: Mapping[str, bytes], revision: int) -> State:
        return await self._begin(values, revision, is_new=False)

    async def state(self) -> State | None:
        async with self._access.reach():
            held: dict[Any, Any] = await self._redis.hgetall(self._state)
        position = _position([held.get(name.encode()) for name in _POSITION])
        if position is None:
            return None
        return State(position, {key[1:].decode(): value for key, value in held.items() if key.startswith(b":")})

    async def position(self) -> Position | None:
        if not self._access.is_confirmed:
            return await self._look()
        async with self._access.reach(share=_LOOK_SHARE):
            return _position(await self._access.write(self._look_script, [self._state, self._looks], [], share=_CONFIRM_SHARE))

    async def writes(self, after: Position) -> list[Write] | None:
        async with self._access.reach():
            args: list[str | int] = [after.generation, max(0, after.revision), after.write_id, int(self._access.is_confirmed)]
            entries = await self._access.write(self._log_script, [self._state, self._log, self._looks], args)
        return None if entries is None else [_write(after.generation, entry_id, fields) for entry_id, fields in entries]

    async def write(self, after: Position, by: str, changes: Mapping[str, bytes | None]) -> Write:
        write = Write(Position(after.generation, after.revision + 1, random_name()), time.time(), by, dict(changes))
        args: list[str | bytes | int | float] = [after.generation, after.revision, after.write_id, write.position.write_id, write.at, by]
        args += (write.size, self._limits.log_writes, self._limits.log_bytes)
        for key, value in changes.items():
            args += (f"-{key}", b"") if value is None else (f"+{key}", value)
        async with self._access.reach():
            if await self._access.write(self._write_script, [self._state, self._log, self._moves], args) is None:
                raise ControlConflict
        return write

    async def wait(self, seen: Position | None, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        last = f"{seen.revision}-1" if seen else "0-0"
        while await self._look() == seen and (left := min(deadline - time.monotonic(), _LOOK_SECONDS)) > 0:
            async with self._access.reach(left, share=_LOOK_SHARE):
                if await self._redis.xread({self._moves: last}, count=1, block=max(1, round(1000 * left))):
                    return

    async def announce(self, replica: Replica) -> None:
        lived_ms = round(1000 * self._limits.announced_seconds)
        async with self._access.reach():
            await self._announce_script(keys=[self._replicas], args=[replica.name, msgspec.json.encode(replica), lived_ms])

    async def withdraw(self, name: str) -> None:
        async with self._access.reach():
            await self._redis.hdel(self._replicas, name)

    async def replicas(self) -> list[Replica]:
        async with self._access.reach():
            told = await self._replicas_script(keys=[self._replicas])
        return sorted((msgspec.json.decode(each, type=Replica) for each in told), key=lambda replica: replica.name)

    async def close(self) -> None:
        await self._access.close()

    async def _look(self) -> Position | None:
        """The position, as the server has it that answers."""
        async with self._access.reach(share=_LOOK_SHARE):
            held: list[Any] = await self._redis.hmget(self._state, _POSITION)
        return _position(held)

    async def _begin(self, values: Mapping[str, bytes], revision: int, *, is_new: bool) -> State:
        generation, write_id = random_name(), random_name()
        args: list[str | bytes | int | float] = [int(is_new), generation, write_id, revision, time.time()]
        for key, value in values.items():
            args += (key, value)
        async with self._access.reach():
            begun = await self._access.write(self._begin_script, [self._state, self._log, self._moves], args)
        if begun is None:
            raise ControlConflict
        return State(Position(generation, int(begun), write_id), dict(values))


def _position(held: Sequence[bytes | None]) -> Position | None:
    generation, revision, write_id = held
    if generation is None or revision is None or write_id is None:
        return None
    return Position(generation.decode(), int(revision), write_id.decode())


def _write(generation: str, entry_id: bytes, fields: Sequence[bytes]) -> Write:
    """The write of an entry of the log."""
    _, write_id, _, _, _, at, _, by, *pairs = fields
    changes = {key[1:].decode(): value if key.startswith(b"+") else None for key, value in zip(pairs[::2], pairs[1::2], strict=True)}
    return Write(Position(generation, int(entry_id.partition(b"-")[0]), write_id.decode()), float(at), by.decode(), changes)
