"""`Keyring`: the keys that the server knows now; they follow their file.

Invariant: a key is known from the moment at which the file that has it was read, about a second after it was written, and a file
that can't be used changes nothing. The whole file is compared, so it does not matter how it was replaced: written in place, renamed, or
mounted anew by Kubernetes, which swaps a link that the path leads through.

The time of a comparison tells nothing of a key: what is looked up is a digest that nobody without the file can steer, and what is found is
compared in constant time.
"""

import asyncio
import hmac
from pathlib import Path

from server.keys.file import KeysFileError, parse, read_bytes
from server.keys.key import Key, KeySet
from server.metrics.keys import KeyMetrics
from server.ticks import tick

LOOK_TICKS = 10
# Longer texts are no keys, and not worth a digest.
_LONGEST = 512
_LOOKED_UP_BYTES = 8


class Keyring:
    """The keys of a file."""

    def __init__(self, path: Path, metrics: KeyMetrics) -> None:
        """Raises KeysFileError: the file can't be used."""
        self._path, self._metrics = path, metrics
        self._data = read_bytes(path)
        self._set, self._by_digest = _known(self._data, path)
        metrics.read(len(self._set.keys))

    def find(self, text: bytes) -> Key | None:
        """The key of a text, if there is one."""
        if len(text) > _LONGEST:
            return None
        digest = self._set.digest(text)
        found = self._by_digest.get(digest[:_LOOKED_UP_BYTES])
        if found is None or not hmac.compare_digest(found[0], digest):
            return None
        return found[1]

    async def watch(self) -> None:
        """Follow the file, for ever."""
        while True:
            await tick(LOOK_TICKS)
            await self.look()

    async def look(self) -> None:
        """Take over what the file has now."""
        try:
            # The volume that it lies on may hang, and many keys take a while to read.
            data = await asyncio.to_thread(read_bytes, self._path)
            if data != self._data:
                self._set, self._by_digest = await asyncio.to_thread(_known, data, self._path)
                self._data = data
        except KeysFileError as error:
            self._metrics.broken(f"{error} The keys that were read before stay.")
        else:
            self._metrics.read(len(self._set.keys))


def _known(data: bytes, path: Path) -> tuple[KeySet, dict[bytes, tuple[bytes, Key]]]:
    """The keys of a file, and each with its digest, by the beginning of that. Raises KeysFileError."""
    keys = parse(data, path)
    return keys, {(digest := bytes.fromhex(key.sha256))[:_LOOKED_UP_BYTES]: (digest, key) for key in keys.keys}
