"""Names of replicas: who shares a host's name and a process's number with others is not taken for one that has ended."""

import os
import subprocess
import sys

import pytest

from server.control import names
from server.control.names import is_dead, may_be_former, replica_name


@pytest.fixture(scope="module")
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_processes_of_this_machine_that_have_ended_are_dead(ended: int):
    own = replica_name()
    host, number, end = own.split("/")
    assert int(number) == os.getpid()
    assert own != replica_name()
    assert is_dead(f"{host}/{ended}/{end}")
    assert not is_dead(f"{host}/{os.getppid()}/{end}")
    # This process has ended nothing, but another name with its number is of one that has.
    assert is_dead(replica_name())


@pytest.mark.parametrize("end", ["0123456789abcdef", "01234567", "", "x"])
def test_processes_elsewhere_are_not_dead_though_they_share_the_name_of_the_host(ended: int, end: str):
    host, number, _ = replica_name().split("/")
    for process in (str(ended), number, "no number"):
        assert not is_dead(f"{host}/{process}/{end}")
    assert not is_dead(host)


def test_nobody_is_dead_where_processes_can_not_be_looked_for(ended: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(names, "_tag", lambda: "")
    host, _, end = replica_name().split("/")
    assert not is_dead(f"{host}/{ended}/{end}")


def test_another_users_process_is_not_dead(ended: int, monkeypatch: pytest.MonkeyPatch):
    """Nor where `/proc` hides it."""

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    host, _, end = replica_name().split("/")
    assert not is_dead(f"{host}/{ended}/{end}")


def test_the_one_before_in_a_container_has_the_same_number(ended: int):
    host, number, _ = replica_name().split("/")
    assert may_be_former(f"{host}/{number}/0123456789abcdef")
    assert not may_be_former(f"{host}/{ended}/0123456789abcdef")
    assert not may_be_former(f"other/{number}/0123456789abcdef")
