"""The `config.json` of a saved model, as names are added to it for readers that know others than transformers 5 writes."""

import json
from pathlib import Path
from typing import Any

_FILE = "config.json"


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a model directory that transformers has just written."""
    config: dict[str, Any] = json.loads((folder / _FILE).read_bytes())
    return config


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write it back, in the layout of transformers."""
    (folder / _FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
