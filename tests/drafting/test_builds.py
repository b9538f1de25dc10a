"""CUDA builds of media packages are hidden beside the CPU build of PyTorch, and only there."""

import sys
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import pytest

from drafting import builds


@pytest.mark.parametrize(
    ("installed", "hidden"),
    [
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0", "torchaudio": "2.11.0", "torchcodec": "0.17.0"}, set(builds.MEDIA)),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu", "torchaudio": "2.11.0"}, {"torchaudio"}),
        ({"torch": "2.13.0+cpu"}, set()),
        ({"torch": "2.13.0", "torchvision": "0.28.0"}, set()),
        ({}, set()),
    ],
)
def test_what_cannot_be_imported_is_hidden(installed: dict[str, str], hidden: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package not in installed:
            raise PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(builds, "version", version)
    monkeypatch.setattr(sys, "modules", {name: module for name, module in sys.modules.items() if name not in builds.MEDIA})
    builds.hide_unusable()
    assert {package for package in builds.MEDIA if package in sys.modules} == hidden
    assert all(find_spec(package) is None for package in hidden)


def test_what_is_imported_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "version", lambda package: "1.0+cpu" if package == "torch" else "1.0")
    monkeypatch.setitem(sys.modules, "torchvision", sys)
    monkeypatch.setattr(builds, "MEDIA", ("torchvision",))
    builds.hide_unusable()
    assert sys.modules["torchvision"] is sys
