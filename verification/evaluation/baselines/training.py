"""The training of a network, epoch by epoch, kept in a folder from which an interrupted one goes on.

Invariant: the order and the dropout of an epoch come from the seed and the epoch's number alone, and a file bears the digest of what its
network learns. So the network is the same whether or not its training was interrupted, and that of other data is never taken for it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from drafting.alignment.data.interactions import Interactions
from drafting.array_types import IntArray
from drafting.cache import whole_file
from drafting.freed_memory import keep_freed_memory
from drafting.neighbours.model import NeighbourError
from verification.evaluation.baselines.cross_entropy import cross_entropy
from verification.evaluation.baselines.networks import LENGTH, NETWORKS

BATCH, LEARNING_RATE = 64, 2e-3
# Batches that are drawn together and then divided by length, as what is padded costs as much as what is learnt.
DRAWN = 32
_DIGITS = 16


@dataclass(frozen=True)
class Lesson:
    """A network, by its settings, and the data that it learns.

    Attributes:
        name: a key of `NETWORKS`.
        items: of the catalog.
    """

    name: str
    known: Interactions
    items: int
    dropout: float
    seed: int

    @property
    def digest(self) -> str:
        """A name that no other lesson has."""
        told = self.name, self.items, self.dropout, self.seed, BATCH, DRAWN, LEARNING_RATE, LENGTH, torch.__version__
        found = hashlib.sha256(repr(told).encode())
        # Where all are to be predicted, there is nothing to tell apart.
        labels = () if self.known.labels.all() else (self.known.labels,)
        for array in (self.known.offsets, self.known.items, *labels):
            found.update(array.tobytes())
        return found.hexdigest()[:_DIGITS]


class Training:
    """A network that learns a lesson.

    Attributes:
        network: as it is after so many epochs; the same object always.
        epoch: how many.
        noted: what whoever trains has found out so far; kept with the network.
    """

    def __init__(self, lesson: Lesson, folder: Path | None = None, *, anew: bool = False) -> None:
        """Begin, or go on from what a folder holds of this lesson, unless it is to be learnt `anew`.

        Raises:
            NeighbourError: there is nothing to learn.
        """
        keep_freed_memory()
        self._lesson, (self._rows, self._labels) = lesson, training_rows(lesson.known, lesson.items)
        if not len(self._rows):
            raise NeighbourError("No user has an item to predict with another one before it, so a network has nothing to learn from.")
        with _numbers(lesson.seed, 0):
            self.network = NETWORKS[lesson.name](lesson.items, lesson.dropout)
        self._optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        self.epoch = 0
        self.noted: dict[str, float] = {}
        self._file = None if folder is None else folder / f"{lesson.name}-{lesson.digest}.pt"
        if self._file is not None and self._file.exists() and not anew:
            kept = torch.load(self._file, weights_only=True)
            self.network.load_state_dict(kept["network"])
            self._optimizer.load_state_dict(kept["optimizer"])
            self.epoch, self.noted = kept["epoch"], kept["noted"]

    def advance(self) -> None:
        """Train for an epoch."""
        rows, labels = self._rows, self._labels
        lengths = (rows != self._lesson.items).sum(1)
        positions = float(labels.sum()) / max(1, -(-len(rows) // BATCH))
        self.network.train()
        with _numbers(self._lesson.seed, self.epoch + 1) as shuffle:
            for batch in batches(lengths.numpy(), shuffle):
                chosen, length = torch.from_numpy(batch), int(lengths[batch].max())
                part, following = rows[chosen, :length], labels[chosen, 1:length]
                loss = cross_entropy(self.network(part[:, :-1])[following], self.network.outputs, part[:, 1:][following])
                self._optimizer.zero_grad()
                # Every position counts as much, in a batch of long rows and in one of short ones.
                torch.autograd.backward(loss * (int(following.sum()) / positions))
                self._optimizer.step()
        self.epoch += 1

    def keep(self) -> None:
        """Write what a later `Training` of the same lesson goes on from."""
        if self._file is not None:
            kept = {
                "network": self.network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "epoch": self.epoch,
                "noted": self.noted,
            }
            with whole_file(self._file) as building:
                torch.save(kept, building)


def forget_networks(folder: Path) -> None:
    """Remove what trainings have kept in a folder, and the folder if nothing else is there."""
    kept = [path for name in NETWORKS for path in folder.glob(f"{name}-{'[0-9a-f]' * _DIGITS}.pt")]
    for path in kept:
        path.unlink()
    if kept and not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def _numbers(seed: int, epoch: int) -> Iterator[np.random.Generator]:
    """Random numbers of an epoch, torch's included, which are as before afterwards."""
    shuffle = np.random.default_rng([seed, epoch])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(shuffle.integers(2**63)))
        yield shuffle


def batches(lengths: IntArray, shuffle: np.random.Generator) -> list[IntArray]:
    """All rows in batches of at most `BATCH`: random ones, but of like lengths."""
    found: list[IntArray] = []
    for drawn in _parts(shuffle.permutation(len(lengths)), BATCH * DRAWN):
        found += _parts(drawn[np.argsort(lengths[drawn], kind="stable")], BATCH)
    shuffle.shuffle(found)
    return found


def _parts(rows: IntArray, most: int) -> list[IntArray]:
    return np.array_split(rows, max(1, -(-len(rows) // most)))


def training_rows(known: Interactions, items: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Histories in pieces of at most `LENGTH + 1` items, each beginning with the last item of the one before.

    Returns:
        The items, `[pieces, LENGTH + 1]` int64, padded with `items` at the end; and which of them are to be predicted, bool alike, of each
        piece one at least.
    """
    labels = known.labels
    rows: list[IntArray] = []
    wanted: list[IntArray] = []
    for user in np.flatnonzero(known.lengths >= 2).tolist():
        begin, newest = int(known.offsets[user]), int(known.offsets[user + 1]) - 1
        for last in range(newest, begin, -LENGTH):
            piece = slice(max(begin, last - LENGTH), last + 1)
            predicted = labels[piece].astype(np.int64)
            # The first is what the others are predicted from.
            predicted[0] = 0
            if predicted.any():
                rows.append(known.items[piece].astype(np.int64))
                wanted.append(predicted)
    return padded(rows, LENGTH + 1, items), padded(wanted, LENGTH + 1, 0).bool()


def padded(rows: list[IntArray], length: int, padding: int) -> torch.Tensor:
    """Rows as one tensor, `[rows, length]` int64, filled up with `padding` at their ends."""
    found = np.full((len(rows), length), padding, np.int64)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return torch.from_numpy(found)
