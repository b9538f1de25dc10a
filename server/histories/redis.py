"""`RedisHistoryStore`: histories in Redis, shared by every server that knows its URL.

A user has two keys, in one Redis Cluster slot by their common hash tag:

    {prefix:user}:events   sorted set   score = timestamp, member = arrival number in 10 hex digits + JSON [event_id or null, item_id]
    {prefix:user}:ids      hash         ":" + event_id for each member that has one, and "arrivals", the last arrival number

Invariant: the sorted set is the history, in order: Redis sorts by score and equal scores by member, and the arrival number leads the
member. So a read is one ZRANGE, and an append one script that runs atomically on the server: each is one round trip. Reason: a
recommendation waits for its read.

A Redis that evicts keys when its memory is full (`maxmemory-policy` other than `noeviction`) may forget a user, or only the ids that make
appends idempotent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from server.histories.base import Event, HistoryUnavailable, Retention

_ARRIVAL_DIGITS = 10
# Bounds the sockets that requests pile up while Redis hangs; further operations wait for one within their own timeout.
_MAX_CONNECTIONS = 64
# redis-py hands any other option to its connection unchecked, where it could undo the timeouts or fail long after start-up.
_URL_OPTIONS = {"db"}
_TLS_URL_OPTIONS = _URL_OPTIONS | {"ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}

# KEYS: events, ids. ARGV: max_events, time to live in ms (0: for ever), then for each event its score, its field in ids ('' for none) and
# the JSON of its member.
_APPEND = """
local events, ids = KEYS[1], KEYS[2]
local max_events, ttl_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

-- Ids that outlived their evicted history would refuse its events when they are sent again.
if redis.call('EXISTS', events) == 0 then redis.call('DEL', ids) end

local added = {}
for i = 3, #ARGV, 3 do
  local score, id, json = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if id == '' or redis.call('HSETNX', ids, id, '') == 1 then
    local member = string.format('%010x', redis.call('HINCRBY', ids, 'arrivals', 1)) .. json
    redis.call('ZADD', events, score, member)
    added[#added + 1] = member
  end
end

local function forget(members)
  for _, member in ipairs(members) do
    local event_id = cjson.decode(string.sub(member, 11))[1]
    if event_id ~= cjson.null then redis.call('HDEL', ids, ':' .. event_id) end
    redis.call('ZREM', events, member)
  end
end

local oldest_shown = redis.call('ZRANGE', events, -max_events, -max_events, 'WITHSCORES')[2]
if oldest_shown then
  forget(redis.call('ZRANGEBYSCORE', events, '-inf', '(' .. oldest_shown))
  forget(redis.call('ZRANGE', events, 0, -2 * max_events - 1))
end

for _, key in ipairs(KEYS) do
  if ttl_ms > 0 then redis.call('PEXPIRE', key, ttl_ms) else redis.call('PERSIST', key) end
end

local shown = 0
for _, member in ipairs(added) do
  local newer = redis.call('ZREVRANK', events, member)
  if newer and newer < max_events then shown = shown + 1 end
end
return shown
"""


class RedisHistoryStore:
    """A `HistoryStore` in the Redis at `url`, which may be down, now or later.

    Each operation tries anew, for at most `timeout_seconds` from connecting to answer. No command is ever sent twice, since an append whose
    answer was lost may have been stored. Raises ValueError for a URL or a `key_prefix` that cannot be used.
    """

    def __init__(self, url: str, retention: Retention, timeout_seconds: float = 0.5, key_prefix: str = "atspeed:history") -> None:
        if not key_prefix or "{" in key_prefix or "}" in key_prefix:
            raise ValueError(
                f"The key prefix {key_prefix!r} must not be empty and must not contain braces, which mark what Redis Cluster hashes."
            )
        self._address = _address(url)
        self._retention = retention
        self._timeout_seconds = timeout_seconds
        self._key_prefix = key_prefix
        # RESP2: under RESP3 redis-py waits for maintenance notices, and then no longer notices that Redis has closed a pooled connection.
        # No socket timeouts: they would count anew for each step, and `_reach` bounds the whole.
        pool = BlockingConnectionPool.from_url(
            url, max_connections=_MAX_CONNECTIONS, timeout=None, protocol=2, socket_timeout=None, socket_connect_timeout=None
        )
        self._redis = Redis.from_pool(pool)
        self._append = self._redis.register_script(_APPEND)
        self._decoder = msgspec.json.Decoder(tuple[str | None, str])

    async def append(self, user_id: str, events: Sequence[Event]) -> int:
        if not events:
            return 0
        ttl_ms = 0 if self._retention.ttl_seconds is None else round(1000 * self._retention.ttl_seconds)
        args: list[str | bytes | int | float] = [self._retention.max_events, ttl_ms]
        for event in events:
            # redis-py writes a float with repr, which Redis reads back to the same bits.
            args += (
                float(event.timestamp),
                "" if event.event_id is None else f":{event.event_id}",
                msgspec.json.encode((event.event_id, event.item_id)),
            )
        async with self._reach():
            return int(await self._append(keys=self._keys(user_id), args=args))

    async def append_many(self, histories: Mapping[str, Sequence[Event]]) -> int:
        return sum([await self.append(user_id, events) for user_id, events in histories.items()])

    async def read(self, user_id: str, limit: int | None = None) -> list[Event]:
        window = self._retention.window(limit)
        if window == 0:
            return []
        async with self._reach():
            # redis-py types the answer of every variant of ZRANGE in one union, for use with and without await.
            answer = cast("Awaitable[list[tuple[bytes, float]]]", self._redis.zrange(self._keys(user_id)[0], -window, -1, withscores=True))
            members = await answer
        return [self._event(member, score) for member, score in members]

    async def delete(self, user_id: str) -> bool:
        async with self._reach():
            return int(await self._redis.delete(*self._keys(user_id))) > 0

    async def ping(self) -> None:
        async with self._reach():
            await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()

    def _keys(self, user_id: str) -> tuple[str, str]:
        # The prefix stands inside the tag: whatever the user id, empty or with braces, the tag is not empty and both keys share it.
        tag = f"{{{self._key_prefix}:{user_id}}}"
        return f"{tag}:events", f"{tag}:ids"

    def _event(self, member: bytes, score: float) -> Event:
        event_id, item_id = self._decoder.decode(member[_ARRIVAL_DIGITS:])
        return Event(item_id, score, event_id)

    @asynccontextmanager
    async def _reach(self) -> AsyncIterator[None]:
        """Turns every way in which Redis can fail to answer into `HistoryUnavailable`, at the latest after the timeout."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except TimeoutError as error:
            raise HistoryUnavailable(f"Redis at {self._address} did not answer within {self._timeout_seconds:g} s.") from error
        except RedisError as error:
            reason = str(error).rstrip(".").replace(". ", "; ")
            raise HistoryUnavailable(f"Redis at {self._address} cannot serve histories: {reason}.") from error


def _address(url: str) -> str:
    """`host:port` of a Redis URL. Raises ValueError, without quoting the URL, which may hold a password."""
    expected = "expected redis://[user:password@]host[:port][/db], with special characters in the password percent-encoded."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Not chained: the error's text may quote a piece of the password.
        raise ValueError(f"The Redis history URL cannot be read: {expected}") from None
    if not host:
        raise ValueError(f"The Redis history URL names no host: {expected}")
    if parts.fragment or (parts.path.strip("/") and not parts.path.removeprefix("/").isdecimal()):
        raise ValueError(f"The Redis history URL does not end in a database number: {expected}")
    known = _TLS_URL_OPTIONS if parts.scheme == "rediss" else _URL_OPTIONS
    for option, value in parse_qsl(parts.query, keep_blank_values=True):
        if option not in known:
            # Not named: after an unescaped question mark in a password, the "option" is the rest of the password.
            raise ValueError(
                f"The {parts.scheme}:// history URL has an unknown option after its question mark: known are {', '.join(sorted(known))}."
            )
        if option == "ssl_cert_reqs" and value not in ("none", "optional", "required"):
            raise ValueError("The ssl_cert_reqs of a rediss:// history URL is none, optional or required.")
        if option == "db" and not value.isdecimal():
            raise ValueError(f"The Redis history URL does not end in a database number: {expected}")
    return f"{host}:{port or 6379}"
