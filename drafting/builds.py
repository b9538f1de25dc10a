"""Builds of packages that the installed PyTorch cannot load.

vLLM's CPU wheel requires torchvision, torchaudio and torchcodec, and the package index has only their CUDA builds. Beside the CPU build of
PyTorch these raise errors other than `ImportError`, on which transformers and vLLM stop. No text model uses them, so they are hidden.
Invariant: only what could not be imported anyway is hidden.
"""

import sys
from importlib.metadata import PackageNotFoundError, version

MEDIA = ("torchvision", "torchaudio", "torchcodec")


def is_cpu_build(package: str) -> bool | None:
    """True if an installed package is a CPU build, by its version (`2.13.0+cpu`); None if it is not installed."""
    try:
        return version(package).endswith("+cpu")
    except PackageNotFoundError:
        return None


def hide_unusable() -> None:
    """Let media packages that the CPU build of PyTorch cannot load look as if they were not installed."""
    if is_cpu_build("torch"):
        for package in MEDIA:
            if is_cpu_build(package) is False:
                sys.modules.setdefault(package, None)  # type: ignore[arg-type]
