"""Training of the neural baselines, and the scores that they give.

Invariant: dropout and the number of epochs are chosen on the validation users of a network that learned from the training part; the network
that is compared learns from all that is known, for as many epochs. The same seed and threads give the same network.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from drafting.alignment.data.interactions import Interactions
from drafting.array_types import FloatArray, IntArray
from verification.evaluation.baselines.cross_entropy import cross_entropy
from verification.evaluation.baselines.networks import LENGTH, NETWORKS, SequenceNetwork
from verification.evaluation.baselines.ranking import CHOSEN_AT, Scorer, merit, quality_of, ranked_lists
from verification.evaluation.users import HeldOut

DROPOUTS = (0.2, 0.5)
MOST_EPOCHS = 80
# Training ends after so many epochs without a better one.
PATIENCE = 6
# Without validation users.
DEFAULT_EPOCHS = 20
BATCH, LEARNING_RATE = 64, 2e-3


@dataclass(frozen=True)
class NeuralSettings:
    """What a network is trained with, and for how long."""

    dropout: float
    epochs: int

    def __str__(self) -> str:
        return f"dropout {self.dropout:g}, {self.epochs} epochs"


def neural_scores(
    name: str, validation: HeldOut | None, users: HeldOut, items: int, on_step: Callable[[str], None], seeds: int = 1
) -> tuple[str, Iterator[Scorer]]:
    """The chosen settings as a text, and the scores of networks that learned from what `users` know, one a seed.

    Args:
        name: a key of `NETWORKS`.
        validation: users to choose by, with the first seed; None for default settings.
    """
    settings = NeuralSettings(DROPOUTS[0], DEFAULT_EPOCHS)
    if validation is not None:
        settings = max((_chosen(name, validation, items, dropout, on_step) for dropout in DROPOUTS), key=lambda pair: pair[0])[1]

    def trained() -> Iterator[Scorer]:
        for seed in range(seeds):
            epochs = enumerate(train(name, users.known, items, settings.dropout, seed), start=1)
            for epoch, network in islice(epochs, settings.epochs):
                on_step(f"final training with seed {seed}, epoch {epoch} of {settings.epochs}")
                if epoch == settings.epochs:
                    yield scores_of(network, users)

    return str(settings), trained()


def _chosen(name: str, validation: HeldOut, items: int, dropout: float, on_step: Callable[[str], None]) -> tuple[float, NeuralSettings]:
    """The best epoch of one dropout, and its merit on the validation users."""
    best, settings = -1.0, NeuralSettings(dropout, 1)
    for epoch, network in enumerate(train(name, validation.known, items, dropout, seed=0), start=1):
        lists = ranked_lists(validation, scores_of(network, validation), CHOSEN_AT)
        quality = quality_of(validation, lists, CHOSEN_AT)
        on_step(f"dropout {dropout:g}, epoch {epoch}: Recall@10 {quality.recall:.4f} of validation users")
        if merit(quality) > best:
            best, settings = merit(quality), NeuralSettings(dropout, epoch)
        if epoch == MOST_EPOCHS or epoch - settings.epochs >= PATIENCE:
            break
    return best, settings


def train(name: str, known: Interactions, items: int, dropout: float, seed: int) -> Iterator[SequenceNetwork]:
    """Train without end, and yield the network after each epoch; it is the same object each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NETWORKS[name](items, dropout)
        state = torch.random.get_rng_state()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    rows = training_rows(known, items)
    shuffle = np.random.default_rng(seed)
    while True:
        with torch.random.fork_rng(devices=[]):
            torch.random.set_rng_state(state)
            network.train()
            for batch in np.array_split(shuffle.permutation(len(rows)), max(1, -(-len(rows) // BATCH))):
                part = rows[torch.from_numpy(batch)]
                part = part[:, : max(2, int((part != items).sum(1).max()))]
                following = part[:, 1:] != items
                loss = cross_entropy(network(part[:, :-1])[following], network.outputs, part[:, 1:][following])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            state = torch.random.get_rng_state()
        yield network


def training_rows(known: Interactions, items: int) -> torch.Tensor:
    """Histories in pieces of at most `LENGTH + 1` items, each beginning with the last item of the one before; `[pieces, LENGTH + 1]` int64,
    padded with `items` at the end."""
    pieces: list[IntArray] = []
    for user in np.flatnonzero(known.lengths >= 2).tolist():
        history = known.history(user).astype(np.int64)
        pieces += [history[max(0, last - LENGTH) : last + 1] for last in range(len(history) - 1, 0, -LENGTH)]
    return _padded(pieces, LENGTH + 1, items)


def scores_of(network: SequenceNetwork, users: HeldOut) -> Scorer:
    """The scores of a network as it is now, whatever it learns later."""
    frozen = copy.deepcopy(network).eval()

    @torch.inference_mode()
    def scores(rows: range) -> FloatArray:
        histories = [np.array(users.histories[user][-LENGTH:], np.int64) for user in rows]
        lengths = [len(history) for history in histories]
        hidden = frozen(_padded(histories, max(lengths), frozen.items))
        newest = hidden[torch.arange(len(lengths)), torch.tensor(lengths) - 1]
        found: FloatArray = frozen.logits(newest).numpy()
        return found

    return scores


def _padded(rows: list[IntArray], length: int, padding: int) -> torch.Tensor:
    padded = np.full((len(rows), length), padding, np.int64)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return torch.from_numpy(padded)
