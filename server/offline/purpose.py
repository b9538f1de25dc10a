"""`purpose_of`: the users, the models and the options that the lists of a run follow from, as one text.

Invariant: lists of two runs stand in one file, or in one folder, only where both had the same users, models and options.
"""

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import msgspec

from drafting.catalog.catalog import Catalog
from drafting.model_files import ADAPTER_FILE, ModelFiles
from server.offline.questions import Defaults
from server.offline.user_files import UserFile
from server.settings import Settings


def purpose_of(settings: Settings, catalog: Catalog, defaults: Defaults, files: Sequence[UserFile]) -> str:
    """Everything that the lists of these files follow from; a run goes on where an earlier one stopped only if both have the same.

    What is None is a value too: a base is that of the target or that of the draft by its place alone. Options of memory decide which lists
    are refused, and the widest beam is also that of lines which ask for none.

    Raises:
        ModelFilesError: an adapter's base is not there.
    """
    models = [*map(_model, directories_of(settings))]
    numbers = [settings.engine, settings.dtype, settings.exact, settings.quantization, settings.normalise]
    limits = [settings.max_beam_width, settings.kv_memory_gib]
    # Another seed will do where it was drawn by chance.
    asked = replace(defaults, rule=replace(defaults.rule, seed=0)) if defaults.seed_is_drawn else defaults
    blend = None if settings.neighbours is None else [settings.blend, settings.neighbours.resolve(), settings.neighbours.stat().st_mtime_ns]
    purpose = [list(map(astuple, files)), models, numbers, limits, settings.plan, catalog.version, asked, blend]
    return msgspec.json.encode(purpose, enc_hook=str).decode()


def directories_of(settings: Settings) -> list[Path | None]:
    """The directories of the models, each in its own place, which is None where there is none.

    Raises:
        ModelFilesError: an adapter's base is not there.
    """
    given = [settings.target, settings.base, settings.draft, settings.draft_base]
    drafts_base = None if settings.draft is None else _named_base(settings.draft, settings.draft_base, "--draft-base")
    return [*given, _named_base(settings.target, settings.base, "--base"), drafts_base]


def _named_base(directory: Path, given: Path | None, flag: str) -> Path | None:
    """The base that an adapter itself names; `flag` is the one by which users name another."""
    return ModelFiles.find(directory, flag=flag).base if given is None and (directory / ADAPTER_FILE).exists() else None


def _model(directory: Path | None) -> list[object] | None:
    """A directory and its files; a model that is trained anew has others of the same names."""
    if directory is None:
        return None
    files = [(path.name, path.stat()) for path in sorted(directory.glob("*")) if path.is_file()]
    return [directory.resolve(), [(name, status.st_size, status.st_mtime_ns) for name, status in files]]
