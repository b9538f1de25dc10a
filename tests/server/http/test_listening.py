"""Addresses that can't be listened on are refused in a sentence."""

import errno
import os
import socket
from typing import NoReturn

import pytest

from server.http import listening


def test_a_family_of_addresses_that_this_machine_has_not(monkeypatch: pytest.MonkeyPatch):
    """As ::1 where IPv6 is off: the address is read without it, and the socket can't be made."""

    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(listening.PortError, match=r"^The address ::1 can't be listened on: Address family not supported by protocol\.$"):
        listening.listen("::1", 0)


def test_an_address_of_ipv6_stands_in_brackets_in_its_url():
    assert listening.url_of("http", "::1", 8000) == "http://[::1]:8000"
    assert listening.url_of("https", "recommender.internal", 443) == "https://recommender.internal:443"
