"""Directories of training runs: checkpoints, continuing an interrupted run, and publishing the result.

Invariant: the output directory is a finished model or does not exist. A run works in `OUT.partial` and publishes the model with one rename,
so an interrupted run cannot be mistaken for a model or destroy the one that it was to replace. A run continues only a run with the same
settings and data.

Light to import, so that a command can refuse a directory before it loads a training library.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from drafting.alignment.settings import TrainingError
from drafting.cache import takes_directory
from drafting.undecodable import UNDECODABLE

TRAINING_FILE = "training.json"
RUN_FILE = "run.json"
_SPARE_BYTES = 64 * 2**20
_BYTES_PER_WEIGHT = 4


@dataclass(frozen=True)
class RunDirectory:
    """The directories of one run.

    Attributes:
        out: path of the finished directory.
        what: name of its kind, for messages.
        mark: file that identifies a finished directory of this kind.
    """

    out: Path
    what: str = "model directory"
    mark: str = "config.json"

    @property
    def partial(self) -> Path:
        """The working directory of the run."""
        return self.out.with_name(self.out.name + ".partial")

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.partial / "checkpoints"

    @property
    def model(self) -> Path:
        """The directory that is moved to `out` when it is finished."""
        return self.partial / "model"

    def best(self, epoch: int) -> Path:
        """The model of an epoch that was the best so far, where epochs are validated."""
        return self.partial / f"best-{epoch}"

    @property
    def all_best(self) -> list[Path]:
        """All models that are kept of such epochs."""
        return list(self.partial.glob("best-*"))

    @property
    def validated(self) -> Path:
        """The file of the validated epochs."""
        return self.partial / "validated.json"

    @property
    def trial(self) -> "RunDirectory":
        """The run that finds out how many epochs this one takes."""
        return RunDirectory(self.partial / "trial")

    def last_checkpoint(self, most: int) -> Path | None:
        """The newest complete checkpoint of an interrupted run, of step `most` or before; None if there is none."""
        # The trainer writes this file last: a checkpoint without it is incomplete.
        whole = (path.parent for path in self.checkpoints.glob("checkpoint-*/trainer_state.json"))
        return max((path for path in whole if checkpoint_step(path) <= most), key=checkpoint_step, default=None)

    def refuse_existing(self, overwrite: bool) -> None:
        """Raise `TrainingError` if nothing can be moved to `out`, or it may not be replaced; cheap, so call it before loading anything."""
        if not takes_directory(self.out):
            raise TrainingError(f"No {self.what} can be moved to {self.out}, as is done when it is whole: name a directory in it.")
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return
        if not overwrite:
            raise TrainingError(f"{self.out} already exists: choose another directory, or pass --overwrite to replace it.")
        if not (self.out / self.mark).is_file():
            raise TrainingError(f"{self.out} is no {self.what}, so it is not replaced: remove it yourself, or choose another one.")

    def open(self, record: dict[str, Any], overwrite: bool) -> None:
        """Start the run described by `record`, or continue an interrupted run with the same record.

        Raises:
            TrainingError: there is an interrupted run with another record, or the directory cannot be written.
        """
        described = self.partial / RUN_FILE
        contents = msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2)
        try:
            if not described.is_file() and self.partial.is_dir() and any(self.partial.iterdir()):
                raise TrainingError(f"The run would work in {self.partial}, but that holds something else: move it away.")
            if described.is_file() and described.read_bytes() != contents:
                if not overwrite:
                    raise TrainingError(
                        f"{self.partial} holds an interrupted run with other settings or data: repeat those to go on with it, or pass "
                        "--overwrite to drop it."
                    )
                shutil.rmtree(self.partial)
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            described.write_bytes(contents)
        except OSError as error:
            raise TrainingError(f"The run cannot write to {self.partial}: {error.strerror}.") from error

    def check_model_space(self, weights: int, checkpoints: int) -> None:
        """Raise `TrainingError` if the disk has no room for a model of so many weights and its checkpoints with optimizer state."""
        self.check_space(weights * _BYTES_PER_WEIGHT * (1 + 3 * checkpoints), f"the model and {checkpoints} checkpoints")

    def check_space(self, needed: int, what: str) -> None:
        """Raise `TrainingError` if the disk has no room for `needed` bytes, less what an interrupted run has written, and a reserve."""
        needed = max(0, needed - self._written()) + _SPARE_BYTES
        free = shutil.disk_usage(self.partial).free
        if free < needed:
            raise TrainingError(
                f"The run needs about {needed / 2**20:,.0f} MiB in {self.partial.parent} for {what}, but only {free / 2**20:,.0f} MiB are "
                "free."
            )

    def _written(self) -> int:
        """Bytes of checkpoints and models, finished or not, that an interrupted run has left."""
        folders = (self.checkpoints, self.model, *self.all_best)
        return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())

    def publish(self) -> None:
        """Move the finished directory to `out` and remove all other files of the run."""
        if not any(self.model.glob("*.safetensors")):
            raise TrainingError(
                f"The trained weights were not written to {self.model}: with FSDP, set its state dict type to FULL_STATE_DICT."
            )
        # safetensors files are readable by the owner only, but a server often runs as another user.
        mode = (self.partial / RUN_FILE).stat().st_mode
        for path in self.model.iterdir():
            path.chmod(mode)
        if self.out.exists():
            self.out.rename(self.partial / "replaced")
        self.model.rename(self.out)
        shutil.rmtree(self.partial)


def training_record(model: Path) -> dict[str, Any]:
    """The contents of a model's `training.json`; empty if it has none.

    Raises:
        TrainingError: the file is damaged.
    """
    path = model / TRAINING_FILE
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, *UNDECODABLE) as error:
        raise TrainingError(f"{path} does not say how the model was trained: {error}. Train it again, or remove the file.") from error
    return record


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])
