"""`Gate`: lets a request in or says why not.

Invariant: an operation is open to all only where its route says so; every other needs a key with its scope. A server without keys lets this
machine do everything, and others what the scope `recommend` opens: lists, scores, explanations and the items of the catalog.

*This machine* is judged by the connection and by what the request says of its way. The address that the server listens on is no evidence: a
proxy on this machine opens a server on 127.0.0.1 to the whole world. So three things are required:

1. The client has a loopback address, and there is no header of a proxy.
2. The server is called by a name of this machine. A proxy that passes names on does not do that, nor does a page that a browser here has
   loaded under a name that leads here (DNS rebinding).
3. No browser says that the request is from a page elsewhere: of a POST to 127.0.0.1 it says where the page is from (`Origin`), and of a
   GET for a picture or a frame that it is from elsewhere (`Sec-Fetch-Site`).

A proxy that hides all of this can't be told from a program: it needs keys.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from drafting.catalog.json_values import listed
from server.errors import KeyForbids, KeyMissing, KeysNeeded, KeyUnknown, ServedElsewhere
from server.keys.key import Key, Scope
from server.keys.keyring import Keyring
from server.keys.rates import Rates
from server.metrics.keys import KeyMetrics
from server.try_again import KeyBusy

Headers = Iterable[tuple[bytes, bytes]]
# What a port of operations is for.
OPERATIONS = frozenset({Scope.CATALOG, Scope.OPERATE})
# Scopes that a server without keys gives to clients on other machines.
OPEN_ELSEWHERE = frozenset({Scope.RECOMMEND})
_SCHEME = b"bearer "
_PROXY_HEADERS = frozenset({b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"cf-connecting-ip", b"true-client-ip"})
_PROXY_PREFIXES = (b"x-forwarded-", b"x-envoy-")
# What a browser says of the page that a request is for, beside its origin, which it leaves out of pictures, frames and the like.
_SITE, _DESTINATION = b"sec-fetch-site", b"sec-fetch-dest"
_OF_BROWSERS = frozenset({b"origin", _SITE, _DESTINATION})
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


class Gate:
    """The gate of a server; without a keyring that of a server without keys."""

    def __init__(self, keyring: Keyring | None, rates: Rates | None, metrics: KeyMetrics, operate_port: int | None = None) -> None:
        self._keyring, self._rates, self._metrics, self._operate_port = keyring, rates, metrics, operate_port
        self._inside: Counter[str] = Counter()

    @property
    def has_keys(self) -> bool:
        """Whether it asks for keys."""
        return self._keyring is not None

    def check_port(self, port: int | None) -> None:
        """Raise ServedElsewhere if operations have a port of their own, and this is not it."""
        if self._operate_port is not None and port != self._operate_port:
            raise ServedElsewhere

    def find(self, headers: Headers) -> Key:
        """The key that a request to a server with keys brings.

        Raises:
            KeyMissing, KeyUnknown: it brings none, or none that the server knows.
        """
        text = _bearer(headers)
        if text is None:
            self._metrics.keyless.inc(1, "missing")
            raise KeyMissing
        if self._keyring is None or (key := self._keyring.find(text)) is None:
            self._metrics.keyless.inc(1, "unknown")
            raise KeyUnknown
        return key

    def identify(self, needed: Scope, headers: Headers, peer: str | None) -> Key | None:
        """The key of a request, once it is sure that it may do what needs a scope; None where none is asked for.

        Args:
            peer: the client's address, None if it is not known.

        Raises:
            KeyMissing, KeyUnknown, KeyForbids, KeysNeeded: it may not.
        """
        if self._keyring is None:
            if needed not in OPEN_ELSEWHERE and not is_local(peer, headers):
                self._metrics.keyless.inc(1, "elsewhere")
                raise KeysNeeded
            return None
        key = self.find(headers)
        if needed not in key.scopes:
            self._metrics.forbidden.inc(1, key.name, "scope")
            has = listed([scope.value for scope in key.scopes])
            raise KeyForbids(f"This needs a key with the scope {needed.value}; the key {key.name!r} has {has}.")
        return key

    async def enter(self, key: Key, requests: int = 1) -> None:
        """Count a request of a key, until it leaves.

        Args:
            requests: the number that counts against the key's rate; 0 for a request that `charge` counts once its number is known. All are
                counted at once: if a part were counted of a request that is then refused, large ones would be kept out for ever. With 0 a
                request enters where one request may.

        Raises:
            KeyBusy, KeyForbids: as many as the key may have are running, or came lately; it has not entered.
        """
        inside = self._inside[key.name]
        if key.concurrent is not None and inside >= key.concurrent:
            self._metrics.forbidden.inc(1, key.name, "concurrent")
            raise KeyBusy(f"The key {key.name!r} has {inside} requests running, as many as it may have at a time.")
        self._inside[key.name] = inside + 1
        try:
            if self._rates is not None:
                await (self._rates.take(key, requests) if requests else self._rates.check(key))
        except BaseException:
            self.leave(key)
            raise
        self._metrics.requests.inc(1, key.name)

    def leave(self, key: Key) -> None:
        """Count a request that has entered no more."""
        self._inside[key.name] -= 1
        # Keys come and go; those without a request must not be kept.
        if not self._inside[key.name]:
            del self._inside[key.name]

    async def charge(self, key: Key, requests: int) -> None:
        """Count a request that has entered with 0 as so many against its key's rate, all of them or none.

        Raises:
            KeyBusy, KeyForbids: they are too many now, or at once.
        """
        if self._rates is not None:
            await self._rates.take(key, requests)


def is_local(peer: str | None, headers: Headers) -> bool:
    """Whether a request comes from a program on this machine."""
    if peer is None or not is_loopback(peer):
        return False
    told: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES):
            return False
        if name == b"host" and not names_this_machine(value):
            return False
        if name == b"origin" and not names_this_machine(value.partition(b"://")[2]):
            return False
        if name in _OF_BROWSERS:
            told[name] = value
    # A page that somebody opens by a link is not for the page with the link, which can read nothing of it.
    return told.get(_SITE) != b"cross-site" or b"origin" in told or told.get(_DESTINATION) == b"document"


@lru_cache(1024)
def is_loopback(text: str) -> bool:
    """Whether a text is an address that leads back to this machine."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def host_name(host: bytes) -> str:
    """The name in a header `Host`, without its port, in lower case."""
    name = host.decode("latin-1").lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


@lru_cache(1024)
def names_this_machine(host: bytes) -> bool:
    """Whether a header `Host` has a name that leads back to this machine, whoever resolves it."""
    name = host_name(host)
    return name in _LOCAL_NAMES or is_loopback(name)


def _bearer(headers: Headers) -> bytes | None:
    """What the header Authorization brings; None if there is no such header, or of another scheme."""
    for name, value in headers:
        if name == b"authorization":
            return value[len(_SCHEME) :].strip() if value[: len(_SCHEME)].lower() == _SCHEME else None
    return None
