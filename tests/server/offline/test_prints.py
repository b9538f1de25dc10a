"""Prints of files: another one for other contents, at a few reads."""

from pathlib import Path

import pytest

from server.offline.prints import _SMALL, OtherModel, _print, check_prints, prints_of
from server.settings import FlagSettings


@pytest.mark.parametrize("size", [1, 4096, _SMALL, _SMALL + 1, 10 * _SMALL + 7])
def test_weights_that_are_trained_anew_have_another_print(tmp_path: Path, size: int) -> None:
    prints = set()
    for name, content in (("a", b"a" * size), ("copy", b"a" * size), ("b", b"b" * size), ("longer", b"a" * (size + 1))):
        (tmp_path / name).write_bytes(content)
        prints.add(_print(tmp_path / name))
    ends = b"b" + b"a" * (size - 2) + b"b" if size > 1 else b"c"
    (tmp_path / "ends").write_bytes(ends)
    assert len({*prints, _print(tmp_path / "ends")}) == 4


def test_every_file_of_every_model_is_compared(tmp_path: Path) -> None:
    target, draft = tmp_path / "target", tmp_path / "draft"
    for folder in (target, draft):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "README.md").write_text("")
    neighbours = tmp_path / "neighbours.npz"
    neighbours.write_bytes(b"one")
    settings = FlagSettings(target=target, draft=draft, neighbours=neighbours, blend=0.5, catalog=tmp_path, engine="transformers")
    began = prints_of(settings)
    assert {*began} == {str(target / "config.json"), str(draft / "config.json"), str(neighbours)}
    check_prints(began, settings)
    (draft / "tokenizer.json").write_text("{}")
    with pytest.raises(OtherModel, match=r"draft/tokenizer\.json is none of those that the run began with"):
        check_prints(began, settings)
    (draft / "tokenizer.json").unlink()
    (target / "config.json").unlink()
    with pytest.raises(OtherModel, match=r"target/config\.json is not there"):
        check_prints(began, settings)
    (target / "config.json").write_text("{}")
    neighbours.write_bytes(b"two")
    with pytest.raises(OtherModel, match=r"neighbours\.npz is not the one that the run began with: all workers need the same model\.$"):
        check_prints(began, settings)
