"""What is stored of one user, read for a command."""

from typing import Any

import pytest

from server.offline import stored
from server.offline.stored import StoredHistory, StoredHistoryError
from tests.models import random_catalog


def test_a_command_waits_longer_for_the_store_than_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads is behind a connection that is to be made: by TLS, or by a Sentinel, from where the Redis may be far away."""
    waits: list[float] = []

    def opened(url: str, *, timeout_seconds: float, **_: Any) -> None:
        waits.append(timeout_seconds)
        raise ValueError(f"There is nothing at {url}.")

    monkeypatch.setattr(stored, "open_history_store", opened)
    with pytest.raises(StoredHistoryError, match=r"^There is nothing at redis://there\.$"):
        StoredHistory.read("redis://there", "anna", random_catalog(items=5), max_events=10)
    assert waits == [10.0]
