"""`RedisHistoryStore`: histories in Redis (one server, Sentinel or Cluster), shared by all servers with its URL.

A user has up to four keys, in the same slot of a Redis Cluster because of their common hash tag:

    {prefix:user}:events   sorted set   score = timestamp, member = arrival number in 10 hex digits + JSON [event_id or null, item_id],
                                        with kind, value and attributes behind them where there are any
    {prefix:user}:order    list         the scores of the members, in order of arrival
    {prefix:user}:ids      hash         ":" + event_id with its arrival number, and "arrivals", the last arrival number
    {prefix:user}:profile  text         JSON of the profile

Invariant: the sorted set is the history in order, because Redis sorts by score and then by member, and members begin with the arrival
number; so the first member with the first score of the list is the one that arrived first. A read is a ZRANGE and a GET that are sent
together and a write one atomic script, so each is one round trip, which matters because a recommendation waits for it. The list is made
anew where it is missing or does not fit.

A member that is none of ours is passed over by reads, and reported: it must not cost the user the rest of the history.

Redis acknowledges a write before its replicas have it, so a failover may lose the last acknowledged writes. With `wait_replicas`, a write
is acknowledged when so many replicas have it, a deletion too, also one that finds nothing: it may repeat one that they do not have yet.
Sentinel promotes the replica with the most data.

A Redis that evicts keys when its memory is full (`maxmemory-policy` other than `noeviction`) may lose a user, or only the profile, or the
ids that make appends idempotent.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from redis.asyncio import RedisCluster
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from drafting.prompts.user_state import Scalar, Value
from drafting.undecodable import UNDECODABLE
from server.errors import HistoryDamaged
from server.histories.base import DamageReport, Event, EventChoice, Retention, StoredUser, log_damage
from server.histories.history import Profile
from server.histories.redis_scripts import APPEND, DELETE, DELETE_EVENTS, DELETE_PROFILE, LIMIT_LIFE, PUT_PROFILE, WRITE_NOTHING
from server.redis.access import RedisAccess
from server.try_again import HistoryUnavailable

_T = TypeVar("_T")

_KINDS = frozenset((b"events", b"order", b"ids", b"profile"))
_ARRIVAL_DIGITS = 10
# Limits the sockets while Redis hangs; further operations wait for a connection within their timeout.
_MAX_CONNECTIONS = 64
# Connections of a bulk load; the others are left to those who read meanwhile.
_CALLS_TOGETHER = 16
_USERS_PER_SAMPLE = 50
_KEYS_PER_SCAN = 512


class _Member(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    # The JSON of an event in the sorted set.

    event_id: str | None
    item_id: str
    kind: str | None = None
    value: float | None = None
    attributes: dict[str, Scalar] = {}


_members = msgspec.json.Decoder(_Member)
_profiles = msgspec.json.Decoder(Profile)


class RedisHistoryStore:
    """A `HistoryStore` in the Redis at `url`, which may be down at any time.

    Each operation takes at most `timeout_seconds`, from connecting to the answer. No command is sent twice, because an append whose answer
    was lost may have been stored. Raises ValueError for a URL or a `key_prefix` that cannot be used.
    """

    def __init__(
        self,
        url: str,
        retention: Retention,
        timeout_seconds: float = 0.5,
        key_prefix: str = "atspeed:history",
        on_damage: DamageReport = log_damage,
    ) -> None:
        if not key_prefix or "{" in key_prefix or "}" in key_prefix:
            raise ValueError(
                f"The key prefix {key_prefix!r} must not be empty and must not contain braces, which mark what Redis Cluster hashes."
            )
        self._access = RedisAccess(url, timeout_seconds, _MAX_CONNECTIONS, "histories", HistoryUnavailable)
        self._redis = self._access.client
        self._retention = retention
        self._key_prefix = key_prefix
        self._on_damage = on_damage
        self._ttl_ms = 0 if retention.ttl_seconds is None else round(1000 * retention.ttl_seconds)
        self._append = self._redis.register_script(APPEND)
        self._delete = self._redis.register_script(DELETE)
        self._delete_events = self._redis.register_script(DELETE_EVENTS)
        self._delete_profile = self._redis.register_script(DELETE_PROFILE)
        self._limit_life = self._redis.register_script(LIMIT_LIFE)
        self._put_profile = self._redis.register_script(PUT_PROFILE)
        self._write_nothing = self._redis.register_script(WRITE_NOTHING)

    async def append(self, user_id: str, events: Sequence[Event]) -> int:
        if not events:
            return 0
        args: list[str | bytes | int | float] = [self._retention.max_events, self._ttl_ms]
        for event in sorted(events, key=attrgetter("timestamp")):
            # redis-py writes floats with repr, which Redis reads back exactly.
            args += (
                float(event.timestamp),
                "" if event.event_id is None else f":{event.event_id}",
                _member(event),
            )
        return int(await self._write(self._append, user_id, args))

    async def append_many(self, histories: Mapping[str, Sequence[Event]]) -> int:
        return sum(await _together([partial(self.append, user_id, events) for user_id, events in histories.items()]))

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        return (await self.read_user(user_id, limit)).events

    async def read_user(self, user_id: str, limit: int | None = None) -> StoredUser:
        window = self._retention.window(limit)
        events, _, _, profile = self._keys(user_id)
        async with self._reach(user_id):
            both = self._redis.pipeline(transaction=False)
            # The range of an empty window ends before it begins.
            first, last = (-window, -1) if window else (1, 0)
            both.zrange(events, first, last, withscores=True)
            both.get(profile)
            # What redis-py raises by itself quotes the keys.
            answers: list[Any] = await both.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        members, content = answers
        shown = [event for member, score in members if (event := self._event(member, score)) is not None]
        try:
            return StoredUser(shown, None if content is None else _profiles.decode(content))
        except UNDECODABLE as error:
            raise HistoryDamaged(user_id) from error

    async def sample(self, users: int, limit: int) -> list[list[Event]]:
        found: list[list[Event]] = []
        met: set[bytes] = set()
        # A scan finds keys in the order of their hashes, so its first ones are any; some it finds twice.
        async for keys in self._scanned(f"{_literal(f'{{{self._key_prefix}:')}*}}:events"):
            new = [key for key in dict.fromkeys(keys) if key not in met]
            met.update(new)
            for start in range(0, len(new), _USERS_PER_SAMPLE):
                found += await self._newest(new[start : start + _USERS_PER_SAMPLE], limit)
                if len(found) >= users:
                    return found[:users]
        return found

    async def _scanned(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """The keys of a pattern, as each SCAN finds them, which has the time of an operation: most keys may be those of others."""
        async with self._reach(None):
            nodes = self._redis.get_primaries() if isinstance(self._redis, RedisCluster) else [None]
        for node in nodes:
            where: dict[str, Any] = {} if node is None else {"target_nodes": node}
            cursor: Any = None
            while cursor != 0:
                async with self._reach(None):
                    answer: Any = await self._redis.scan(cursor or 0, pattern, _KEYS_PER_SCAN, **where)
                cursor, keys = answer
                yield keys
                if node is not None:
                    cursor = cursor[node.name]

    async def _newest(self, keys: Sequence[bytes], limit: int) -> list[list[Event]]:
        """The newest events of each history that has any."""
        async with self._reach(None):
            many = self._redis.pipeline(transaction=False)
            for key in keys:
                many.zrange(key, -max(1, self._retention.window(limit)), -1, withscores=True)
            answers: list[Any] = await many.execute(raise_on_error=False)
            for answer in answers:
                # A key of another kind is damage. A Cluster answers with errors, too, for the keys of a server that fails.
                if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
                    raise answer
        read = [[event for member, score in each if (event := _event(member, score))] for each in answers if isinstance(each, list)]
        return [events for events in read if events]

    async def put_profile(self, user_id: str, profile: Mapping[str, Value]) -> None:
        await self._write(self._put_profile, user_id, [self._ttl_ms, msgspec.json.encode(profile)])

    async def put_profiles(self, profiles: Mapping[str, Mapping[str, Value]]) -> None:
        await _together([partial(self.put_profile, user_id, profile) for user_id, profile in profiles.items()])

    async def delete_profile(self, user_id: str) -> bool:
        return int(await self._write(self._delete_profile, user_id, [])) > 0

    async def delete_events(self, user_id: str, chosen: EventChoice) -> int:
        texts = ["" if text is None else f":{text}" for text in (chosen.event_id, chosen.item_id)]
        args: list[str | bytes | int | float] = [*texts, "" if chosen.timestamp is None else float(chosen.timestamp)]
        return int(await self._write(self._delete_events, user_id, args))

    async def delete(self, user_id: str) -> bool:
        return int(await self._write(self._delete, user_id, [])) > 0

    async def limit_lives(self, tell: Callable[[int], object], pass_over: Callable[[int], object]) -> int:
        limited = 0
        if not self._ttl_ms:
            return limited
        async for keys in self._scanned(f"{_literal(f'{{{self._key_prefix}:')}*}}:*"):
            # A user is found with each key, as any of them may be all that is left.
            users = dict.fromkeys(user for key in keys if (user := self._user_of(key)) is not None)
            found = sum(await _together([partial(self._write, self._limit_life, user, [self._ttl_ms]) for user in users]))
            limited += found
            tell(found)
        return limited

    async def close(self) -> None:
        await self._access.close()

    async def _write(self, script: AsyncScript, user_id: str, args: Sequence[str | bytes | int | float]) -> Any:
        async with self._reach(user_id):
            answer = await self._access.write(script, self._keys(user_id), args)
            if answer == 0 and self._access.is_confirmed:
                # From 7.2 on, Redis waits for no replica where the connection has written nothing.
                await self._access.write(self._write_nothing, [f"{{{self._key_prefix}:}}:nothing"], [])
            return answer

    def _keys(self, user_id: str) -> tuple[str, str, str, str]:
        # The prefix is inside the tag, so for every user id, even an empty one or with braces, the keys share a tag that is not empty.
        tag = f"{{{self._key_prefix}:{user_id}}}"
        return f"{tag}:events", f"{tag}:order", f"{tag}:ids", f"{tag}:profile"

    def _user_of(self, key: bytes) -> str | None:
        """Whose key it is; None for one that is none of ours."""
        tag, _, kind = key.rpartition(b"}:")
        try:
            return tag.decode()[len(self._key_prefix) + 2 :] if kind in _KINDS else None
        except UnicodeDecodeError:
            return None

    def _event(self, member: bytes, score: float) -> Event | None:
        if (event := _event(member, score)) is None:
            self._on_damage("event", f"A stored event in Redis at {self._access.address} can't be read and is passed over.")
        return event

    @asynccontextmanager
    async def _reach(self, user_id: str | None) -> AsyncIterator[None]:
        """Limit the time of an operation, and turn keys of another kind into `HistoryDamaged`, other failures into `HistoryUnavailable`."""
        async with self._access.reach():
            try:
                yield
            except RedisError as error:
                # Redis 6 says it of a script behind what script that was.
                if user_id is not None and "WRONGTYPE" in str(error):
                    raise HistoryDamaged(user_id) from error
                raise


async def _together(calls: Sequence[Callable[[], Awaitable[_T]]]) -> list[_T]:
    """The results of calls that wait for Redis side by side; when all of a group have ended, the first failure is raised.

    Not a pipeline: its commands would share one time limit, and a Cluster's pipelines take no scripts.
    """
    answers: list[_T] = []
    for start in range(0, len(calls), _CALLS_TOGETHER):
        ended = await asyncio.gather(*(call() for call in calls[start : start + _CALLS_TOGETHER]), return_exceptions=True)
        for answer in ended:
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
    return answers


def _literal(text: str) -> str:
    """A pattern of Redis that matches this text alone."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)


def _event(member: bytes, score: float) -> Event | None:
    """The event of a member of the sorted set; None for one that is none of ours."""
    try:
        told = _members.decode(member[_ARRIVAL_DIGITS:])
        return Event(told.item_id, score, told.event_id, told.kind, told.value, told.attributes)
    except (*UNDECODABLE, ValueError):
        return None


def _member(event: Event) -> bytes:
    told = event.kind, event.value, event.attributes
    # Most events have none of them, and take less room without.
    return msgspec.json.encode((event.event_id, event.item_id, *(told if any(part not in (None, {}) for part in told) else ())))
