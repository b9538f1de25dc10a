"""The check of a base before it learns from trees: that it answers after a node as after the plain text of the node's path.

Invariant: it knows nothing of any family. A model whose layers attend to a window of the last tokens is given one mask for all of them in a
tree batch, and would learn, without an error, in another attention than the one in which it is served.
"""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from drafting.alignment.bases import Base
from drafting.alignment.draft_loss import MODEL_INPUTS
from drafting.alignment.needs import WITHOUT_LISTS
from drafting.alignment.settings import TrainingError
from drafting.alignment.tree_batch import TreeWindows, tree_batch
from drafting.errors import MODEL_ERRORS, first_line

# Share of the spread of log-probabilities that rounding explains.
ROUNDING = 1e-3


def check_trees(base: Base, longest: int, depth: int) -> None:
    """Compare a base's log-probabilities in a tree batch with those after plain texts, as long as the longest window of the data.

    Args:
        longest: number of tokens of that window, its answer included.
        depth: number of tokens of an identifier.

    Raises:
        TrainingError: they differ by more than rounding, or the base takes no tree batch.
    """
    is_training = base.model.training
    base.model.eval()
    try:
        difference = _difference(base.model, longest, depth)
    except MODEL_ERRORS as error:
        raise TrainingError(
            f"The base {base.name} ({base.model.config.model_type}) can't learn from trees of lists, because its code takes no masks "
            f"({first_line(error)}): start from another, or choose the objective {' or '.join(WITHOUT_LISTS)}, which has no trees."
        ) from error
    finally:
        base.model.train(is_training)
    # A difference that is not a number is no match either.
    if not difference <= ROUNDING:
        raise TrainingError(
            f"The base {base.name} ({base.model.config.model_type}) can't learn from trees behind prompts of up to {longest - depth} "
            "tokens: it answers otherwise after a node of a tree than after the same plain text, as models do whose layers attend to a "
            "window or a chunk that is shorter. Start from a base that attends to all tokens, teach with shorter prompts, or choose "
            f"the objective {' or '.join(WITHOUT_LISTS)}, which has no trees."
        )


@torch.inference_mode()
def _difference(model: PreTrainedModel, longest: int, depth: int) -> float:
    """Root mean square of the differences of log-probabilities, as a share of their own spread."""
    below = depth - 1
    tokens = np.random.default_rng(0).integers(model.config.get_text_config().vocab_size, size=longest - depth + 2 * below)
    prompt, branches = tokens[: longest - depth], tokens[longest - depth :].reshape(2, below)
    windows = _windows(prompt, branches)
    batch, nodes = tree_batch(windows, np.zeros(1, np.int64), 0)
    inputs = {name: batch[name].to(model.device) for name in MODEL_INPUTS}
    found = _log_probs(model(**inputs, use_cache=False).logits[0, torch.from_numpy(nodes.column)])
    texts = np.concatenate([np.tile(prompt, (2, 1)), branches], axis=1)
    plain = model(input_ids=torch.from_numpy(texts).to(model.device), use_cache=False).logits
    # Nodes stand level by level, one of each branch.
    branch = np.arange(len(windows.node_depth) - 1) % 2
    rows = torch.from_numpy(np.append(0, branch)), torch.from_numpy(len(prompt) - 1 + windows.node_depth)
    expected = _log_probs(plain[rows])
    spread = (expected - expected.mean(1, keepdim=True)).square().mean()
    return float(((found - expected).square().mean() / spread).sqrt())


def _windows(prompt: np.ndarray, branches: np.ndarray) -> TreeWindows:
    """One window with a tree of two branches below its last token."""
    nodes = 1 + branches.size
    return TreeWindows(
        tokens=prompt,
        token_offsets=np.array([0, len(prompt)]),
        answers=np.zeros(1, np.int64),
        tree_offsets=np.array([0, 1]),
        tree_root=np.array([len(prompt) - 1]),
        node_offsets=np.array([0, nodes]),
        node_token=np.append(0, branches.T),
        node_depth=np.append(0, np.repeat(np.arange(1, branches.shape[1] + 1), 2)),
        node_parent=np.maximum(np.arange(nodes) - 2, 0),
    )


def _log_probs(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(1)
