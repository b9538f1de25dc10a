"""The examples of docs/client.md, one after the other, against a real server."""

import re
from pathlib import Path

import pytest

from tests.server.server_process import ServerProcess
from tests.test_docs import FENCE, text_of

EXAMPLES = [block for language, block in FENCE.findall(text_of("docs/client.md")) if language == "python"]


def test_the_examples_of_the_docs(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert len(EXAMPLES) == 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, example in enumerate(EXAMPLES, start=1):
        exec(compile(re.sub(r"http://127\.0\.0\.1:8000", server.url, example), f"example {number}", "exec"), names)
    printed = capsys.readouterr().out
    for said in (
        "tiny 200",
        "404 There is no user 'nobody'",
        "404 urn:atspeed:unknown-user",
        "ready",
        "Title 3",
        "300 events are new",
        "100%",
        "8 lists",
    ):
        assert said in printed
    assert server.client.delete("/v1/catalogs/next").status_code == 204
    assert server.client.delete("/v1/catalog/filters/some").status_code == 204
