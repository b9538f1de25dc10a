"""Alignment objectives: losses between the distributions of a draft and of its target.

Invariant: pure functions of logits and teacher probabilities, each a mean over the rows, weighted where rows count differently: a row of
weight zero has no gradient. A row is one position of one sequence; its columns are the tokens that the objective compares, either a level's
codes or the whole vocabulary, and its teacher probabilities sum to 1 over them.

Notation: `logits` and `teacher` are `[rows, columns]`, `weights` `[rows]`; q = softmax(logits / temperature) is the draft's distribution, p
the teacher's.
Source of the formulas: AtSpeed (arXiv 2410.05165), section 4, and the papers named below.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Smaller probabilities are raised to this, because their logarithm must be finite; float16 on disk has none smaller.
SMALLEST = 1e-8


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of `values` `[rows]` weighted by `weights` `[rows]` (bool or numbers); zero without gradient if all weights are zero."""
    total = weights.sum().to(values.dtype)
    return (values.masked_fill(weights <= 0, 0.0) * weights).sum() / torch.where(total > 0, total, 1.0)


def list_cross_entropy(logits: Tensor, taken: Tensor) -> Tensor:
    """SeqKD (Kim & Rush 2016): -sum_y w(y) log q(y), normalised so that every token of a list counts the same.

    w(y) is the number of the teacher's lists that continue with token y, so the sum over a tree's positions is the cross-entropy of all its
    lists, with shared prefixes computed once. A row that no list goes through has no gradient.

    Args:
        taken: `[rows, columns]`, w(y), at least zero.
    """
    return -(taken * logits.log_softmax(-1)).sum() / taken.sum().clamp(min=1)


def forward_kl(logits: Tensor, teacher: Tensor) -> Tensor:
    """WordKD (Sanh et al. 2019): KL(p || q) = sum_y p(y) (log p(y) - log q(y))."""
    return (torch.xlogy(teacher, teacher) - teacher * logits.log_softmax(-1)).sum(-1).mean()


def total_variation(logits: Tensor, teacher: Tensor, weights: Tensor, temperature: float = 1.0) -> Tensor:
    """TVDKD (Wen et al. 2023) and AtSpeed-R (equation 9): TV(q, p) = 1/2 sum_y |q(y) - p(y)|.

    1 - TV is the probability that rejection sampling against p accepts a token drawn from q. The published code uses a temperature of
    0.001, where almost every gradient vanishes; 1 keeps them.
    """
    losses = 0.5 * ((logits / temperature).softmax(-1) - teacher).abs().sum(-1)
    return weighted_mean(losses, weights)


def top_reverse_kl(
    logits: Tensor, teacher: Tensor, weights: Tensor, top: int = 20, density: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """AtSpeed-S (equations 6 to 8): KL(q' || p') + density * p(y_K) * H(q'), on the draft's own K = `top` most probable tokens.

    q' and p' are q and p on these tokens, renormalised; y_K is the last of them. Reverse KL makes the draft avoid tokens that the target
    rejects. The second term is the density regularisation: while the target gives y_K weight, tokens beyond the top K matter as well, so
    the entropy of q' should be low.

    The choice of the tokens has no gradient.
    """
    scaled = logits / temperature
    chosen = scaled.topk(min(top, scaled.shape[-1]), dim=-1).indices
    log_q = scaled.gather(-1, chosen).log_softmax(-1)
    taught = teacher.gather(-1, chosen).clamp(min=SMALLEST)
    log_p = taught.log() - taught.sum(-1, keepdim=True).log()
    q = log_q.exp()
    divergence = (q * (log_q - log_p)).sum(-1)
    entropy = -(q * log_q).sum(-1)
    return weighted_mean(divergence + density * taught[..., -1] * entropy, weights)


def coverage(scores: Tensor, wanted: Tensor, reach: int, margin: float = 1.0) -> Tensor:
    """AtSpeed-C: for strict acceptance all of the target's top K must be among the draft's top N = `reach`.

    This holds exactly if at most N - K other continuations score higher than the worst of the K. Per row (one level of one tree), the bar
    is the (N - K + 1)-th best of the others, and the loss is softplus(bar - min_{y wanted} score(y) + margin): the worst beam counts, as in
    verification, and no wanted beam is pushed down. Rows with too few others to fill the top N do not count.

    Args:
        scores: `[rows, continuations]` cumulative log-probabilities under the draft; -inf where there is none.
        wanted: `[rows, continuations]` bool, the target's top K.
    """
    rivals = scores.masked_fill(wanted, float("-inf")).topk(min(reach + 1, scores.shape[-1]), dim=-1).values
    rank = (reach - wanted.sum(-1)).clamp(min=0)
    bar = rivals.gather(-1, rank.clamp(max=rivals.shape[-1] - 1)[..., None])[..., 0]
    worst = scores.masked_fill(~wanted, float("inf")).amin(-1)
    counts = (rank < rivals.shape[-1]) & bar.isfinite() & worst.isfinite()
    gap = torch.where(counts, bar, 0.0) - torch.where(counts, worst, 0.0)
    return weighted_mean(F.softplus(gap + margin), counts)
