"""`Key`: what a holder of one key may do; a file of them, whose form this is.

A key is a prefix that scanners for leaked secrets can know, and 43 random letters and digits: 256 bits, which can't be guessed, so its
digest may be fast. It is SHA-256 over the file's salt and the key. A slow digest (bcrypt, Argon2) protects passwords that people choose;
here it would only let a client that sends wrong keys keep a processor busy: 100,000 a minute cost a tenth of a percent of one core with
SHA-256, and more than all cores with Argon2. The salt is random, so the same key has another digest in another file, and keys can't be
chosen by what their digests look like without the file. Helm can compute it too, which makes the chart's keys.

Invariant: a key is shown to the person who makes it and known to its holders, and is nowhere else: the file has digests.
"""

import re
import secrets
import string
from enum import Enum
from hashlib import sha256
from typing import Annotated

import msgspec

from server.errors import KeyForbids

PREFIX = "atspeed_"
# So many that no search over all keys ends.
_RANDOM_CHARACTERS = 43
_ALPHABET = string.ascii_letters + string.digits
NAME = "[a-z0-9][a-z0-9._-]{0,62}"
RATE = "[1-9][0-9]{0,8}/(second|minute|hour|day)"


class Scope(Enum):
    """What a key is good for.

    Attributes:
        RECOMMEND: lists, and the catalog that they are made from.
        EVENTS: append events to users' histories.
        USERS: read, change and delete what is stored of users.
        CATALOG: versions, items and filters: what is recommended.
        OPERATE: the server itself.
    """

    RECOMMEND = "recommend"
    EVENTS = "events"
    USERS = "users"
    CATALOG = "catalog"
    OPERATE = "operate"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One key; a bound that is None does not bind.

    Attributes:
        name: name of its holder, as metrics and messages tell it.
        sha256: hexadecimal digest of the file's salt and the key.
        scopes: what it is good for.
        rate: most lists and other requests in a time, of the whole fleet, such as `100/second`; a batch is as many as it has entries,
            and a request for scores one for each hundred items.
        concurrent: most requests at a time, of each replica.
        max_k: largest `k` of a list.
        max_width: largest `beam_width` of a list, of its widest level if each has its own.
        max_scored: most items of a request for scores.
    """

    name: Annotated[str, msgspec.Meta(pattern=rf"^{NAME}\Z")]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: Annotated[tuple[Scope, ...], msgspec.Meta(min_length=1)]
    rate: Annotated[str, msgspec.Meta(pattern=rf"^{RATE}\Z")] | None = None
    concurrent: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_k: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_width: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_scored: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def check(self, k: int, widest: int | None) -> None:
        """Raise KeyForbids if a list is larger than the key may ask for.

        Args:
            widest: width of its beam, of the widest level if each has its own; None if it names none. A beam is never narrower than `k`.
        """
        for name, asked, most in (("k", k, self.max_k), ("beam_width", widest, self.max_width), ("k", k, self.max_width)):
            if most is not None and asked is not None and asked > most:
                raise KeyForbids(f"The key {self.name!r} may ask for a {name} of at most {most}, got {asked}.")

    def check_scored(self, items: int) -> None:
        """Raise KeyForbids if a request for scores has more items than the key may ask for."""
        if self.max_scored is not None and items > self.max_scored:
            raise KeyForbids(f"The key {self.name!r} may ask for the scores of at most {self.max_scored} items, got {items}.")

    def width(self, k: int, usual: int) -> int:
        """The beam width of a list that names none."""
        return usual if self.max_width is None else max(k, min(usual, self.max_width))


class KeySet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All keys of a file.

    Attributes:
        salt: stands before each key when its digest is made.
        keys: each with a name and a digest of its own, so that what is found by a digest is one key.
    """

    salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z]{16,64}\Z")]
    keys: tuple[Key, ...] = ()

    def __post_init__(self) -> None:
        by_digest: dict[str, str] = {}
        names: set[str] = set()
        for key in self.keys:
            if key.name in names:
                raise ValueError(f"two keys have the name {key.name!r}")
            if (other := by_digest.setdefault(key.sha256, key.name)) != key.name:
                raise ValueError(f"{other!r} and {key.name!r} are the same key")
            names.add(key.name)

    def digest(self, text: bytes) -> bytes:
        """The digest of a key."""
        return sha256(self.salt.encode() + text).digest()


def new_key() -> str:
    """A key that nobody has yet."""
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))


def new_salt() -> str:
    """A salt for a new file."""
    return secrets.token_hex(16)


def is_name(text: str) -> bool:
    """Whether a text can be the name of a key."""
    return re.fullmatch(NAME, text) is not None


def is_rate(text: str) -> bool:
    """Whether a text is a rate, such as `100/second`."""
    return re.fullmatch(RATE, text) is not None
