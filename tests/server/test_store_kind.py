"""What a URL of a store names, and the sentences about those that name none."""

import re

import pytest

from server.store_kind import kind_of


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://", "memory"),
        ("sqlite:///relative.db", "sqlite"),
        ("redis://shop:secret@host/1", "redis"),
        ("rediss+sentinel://host/main", "redis"),
        ("redis+cluster://host", "redis"),
    ],
)
def test_a_url_names_a_kind(url: str, kind: str) -> None:
    assert kind_of(url, "history") == kind


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("memory://here", "A memory control store takes no options: the URL is memory:// and nothing more."),
        ("mysql://shop:secret@host", "The control URL's scheme is 'mysql': use memory://, sqlite:///path, redis://, "),
        ("", "The control URL's scheme is 'missing': use memory://"),
    ],
)
def test_another_url_is_refused_without_its_password(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}") as refused:
        kind_of(url, "control")
    assert "secret" not in str(refused.value)
