"""Sockets that listen for clients, claimed before anything else of a server is made."""

import errno
import socket


class PortError(Exception):
    """An address that can't be listened on; the message is a sentence."""


def listen(host: str, port: int, flag: str = "--port") -> socket.socket:
    """A socket that listens on an address; port 0 takes a free one.

    Args:
        flag: the option that chooses the port, which a refusal names.

    Raises:
        PortError: the port is in use, the address is not this machine's, or the machine has no addresses of its family (IPv6 off).
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PortError(f"The address {host} can't be listened on: {error.strerror}.") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        # Two sockets may bind one port with SO_REUSEADDR as long as neither listens: listening at once is what claims it.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortError(f"Port {port} on {host} is in use: stop what listens there, or choose another with {flag}.") from error
        raise PortError(f"Port {port} on {host} can't be listened on: {error.strerror}.") from error
    return listener


def url_of(scheme: str, host: str, port: int) -> str:
    """The URL of an address; one of IPv6 stands in brackets."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
