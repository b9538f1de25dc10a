"""A server that answers as a test says, for the generator's tests."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

# Method, path, body -> status, answer; None hangs up instead.
Script = Callable[[str, str, Any], Awaitable[tuple[int, Any] | None]]


class Shop:
    """Answers every request at once, and keeps events; `recommend` may be replaced."""

    def __init__(self) -> None:
        self.events: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.asked = 0
        self.connections = 0
        self.named: set[str] = set()
        self.forgets = False

    async def recommend(self, body: Any) -> tuple[int, Any] | None:
        return 200, {"items": [{"item_id": "a", "score": -1.0}], "usage": {"prompt_tokens": 10, "cached_tokens": 5}}

    async def answer(self, method: str, path: str, body: Any) -> tuple[int, Any] | None:
        if path == "/v1/recommendations":
            self.asked += 1
            return await self.recommend(body)
        if path.startswith("/v1/catalog/items"):
            return 200, {"version": "v", "offset": 0, "items": [{"item_id": name, "identifier": [f"<{name}>"]} for name in "ab"]}
        user = path.split("/")[3] if path.startswith("/v1/users/") else ""
        if path.endswith("/events"):
            known = {event["event_id"] for event in self.events[user]}
            if not self.forgets:
                self.events[user] += [event for event in body["events"] if event["event_id"] not in known]
            return 200, {"user_id": user, "received": len(body["events"]), "stored": 0}
        if path.endswith("/history"):
            return 200, {"user_id": user, "events": self.history(user)}
        return 200, {}

    def history(self, user: str) -> list[dict[str, Any]]:
        """A user's events in the order of their timestamps."""
        return sorted(self.events[user], key=lambda event: event["timestamp"])


@asynccontextmanager
async def served(shop: Shop) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shop.connections += 1
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                length = 0
                while (header := (await reader.readline()).strip().lower()) != b"":
                    if header.startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                    if header.startswith(b"x-user-id:"):
                        shop.named.add(header.split(b":")[1].strip().decode())
                content = await reader.readexactly(length)
                told = await shop.answer(method, path, json.loads(content) if content else None)
                if told is None:
                    break
                body = json.dumps(told[1]).encode()
                writer.write(f"HTTP/1.1 {told[0]} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
