"""`RedisUrl`: the parsed URL of a Redis: one server, servers watched by Sentinel, or a Cluster.

Invariant: a URL that cannot be used is refused here, in one sentence that quotes nothing of it, because any part of it could be part of the
password. Unknown options are refused too: redis-py would pass them to its connections unchecked.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

_EXPECTED = {
    "": "expected redis://[user:password@]host[:port][/db]",
    "sentinel": "expected redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/db][?sentinel_password=…]",
    "cluster": "expected redis+cluster://[user:password@]host[:port][,host[:port]…]",
}
_PORTS = {"": 6379, "sentinel": 26379, "cluster": 6379}
_TLS_OPTIONS = {"ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
# redis-py's client of a Cluster knows no folder of certificates.
_TLS_OPTIONS_OF = {"": _TLS_OPTIONS, "sentinel": _TLS_OPTIONS, "cluster": _TLS_OPTIONS - {"ssl_ca_path"}}
_SENTINEL_OPTIONS = {"wait_replicas", "sentinel_username", "sentinel_password", "sentinel_password_file"}
# By kind, beside `db`, `password_file` and, under TLS, those above.
_OPTIONS = {"": {"wait_replicas"}, "sentinel": _SENTINEL_OPTIONS, "cluster": set()}


class Topology(Enum):
    """The topology of the Redis servers."""

    SINGLE = ""
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True)
class Login:
    """Credentials: a password, the path of a file with the password, or neither."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None


@dataclass(frozen=True)
class RedisUrl:
    """A parsed URL.

    Attributes:
        nodes: host and port of the server, of the Sentinels, or of some servers of the Cluster.
        login: credentials for the servers with the data.
        sentinel_login: credentials for the Sentinels.
        service: name of the master in Sentinel.
        wait_replicas: number of replicas that must have a write before it is acknowledged.
        tls_options: options of redis-py's TLS connections, to Sentinels as well.
    """

    topology: Topology
    nodes: tuple[tuple[str, int], ...]
    tls: bool = False
    login: Login = Login()
    sentinel_login: Login = Login()
    database: int = 0
    service: str = ""
    wait_replicas: int = 0
    tls_options: dict[str, str | bool] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The address of the Redis, for messages."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.nodes)
        return f"{self.service}@{hosts}" if self.service else hosts

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL.

        Raises:
            ValueError: the URL cannot be used; the message says what is expected and quotes nothing of the URL.
        """
        scheme, _, kind = url.partition("://")[0].partition("+")
        expected = f"{_EXPECTED[kind]}, with special characters in passwords percent-encoded."
        try:
            parts = urlsplit(url)
            login, _, hosts = parts.netloc.rpartition("@")
            nodes = tuple(_node(host, _PORTS[kind]) for host in hosts.split(","))
        except ValueError:
            # Not chained: the error's text may quote a piece of the password.
            raise ValueError(f"The Redis URL cannot be read: {expected}") from None
        if not all(host for host, _ in nodes) or (kind == "" and len(nodes) > 1):
            raise ValueError(f"The Redis URL names no host: {expected}")
        # A plus sign is a plus sign, as before the @: these are not fields of an HTML form.
        options = dict(parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True))
        _check_options(options, parts.scheme, kind, scheme == "rediss", expected)
        path = [unquote(part) for part in parts.path.removeprefix("/").split("/")] if parts.path.strip("/") else []
        service = path.pop(0) if kind == "sentinel" and path else ""
        database = options.get("db", path.pop(0) if path else "0")
        if parts.fragment or path or not database.isdecimal():
            raise ValueError(f"The Redis URL does not end in a database number: {expected}")
        if kind == "sentinel" and not service:
            raise ValueError(f"The Redis URL does not name the master that the Sentinels watch: {expected}")
        if kind == "cluster" and int(database):
            raise ValueError(f"A Redis Cluster has database 0 only: {expected}")
        username, _, password = (unquote(part) for part in login.partition(":"))
        return cls(
            topology=Topology(kind),
            nodes=nodes,
            tls=scheme == "rediss",
            login=_login(username, password, options.get("password_file", "")),
            sentinel_login=_login(*(options.get(f"sentinel_{part}", "") for part in ("username", "password", "password_file"))),
            database=int(database),
            service=service,
            wait_replicas=int(options.get("wait_replicas", "0")),
            tls_options=_tls_options(options),
        )


def _node(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or default_port


def _login(username: str, password: str, password_file: str) -> Login:
    if password and password_file:
        raise ValueError("A Redis URL gives a password or the file that holds it, not both.")
    return Login(username or None, password or None, password_file or None)


def _tls_options(options: dict[str, str]) -> dict[str, str | bool]:
    given: dict[str, str | bool] = {name: value for name, value in options.items() if name in _TLS_OPTIONS}
    if "ssl_check_hostname" in options:
        given["ssl_check_hostname"] = options["ssl_check_hostname"].lower() not in ("0", "f", "false", "n", "no")
    return given


def _check_options(options: dict[str, str], scheme: str, kind: str, tls: bool, expected: str) -> None:
    known = {"db", "password_file"} | _OPTIONS[kind] | (_TLS_OPTIONS_OF[kind] if tls else set())
    for option, value in options.items():
        if option not in known:
            # Not named: after an unescaped question mark in a password, the "option" is the rest of the password.
            raise ValueError(f"The {scheme}:// URL has an unknown option after its question mark: known are {', '.join(sorted(known))}.")
        if option == "ssl_cert_reqs" and value not in ("none", "optional", "required"):
            raise ValueError(f"The ssl_cert_reqs of a {scheme}:// URL is none, optional or required.")
        if option == "db" and not value.isdecimal():
            raise ValueError(f"The Redis URL does not end in a database number: {expected}")
        if option == "wait_replicas" and not value.isdecimal():
            raise ValueError("The wait_replicas of a Redis URL is a number of replicas.")
