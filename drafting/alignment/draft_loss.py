"""The loss of a draft: cross-entropy, and an alignment objective on the target's distributions.

Invariant: loss = (1 - alpha) * CE + alpha * L, each a mean over its positions, so alpha means the same for every objective; prompts and
padding are in neither. The labels of CE are the users' items or, for objectives with the target's lists, these lists.
"""

import torch
from torch import Tensor

from drafting.alignment import objectives
from drafting.alignment.coverage import CoverageLevels
from drafting.alignment.data.samples import Batch
from drafting.alignment.levels import LevelCodes
from drafting.alignment.needs import NEEDS
from drafting.alignment.settings import DraftSettings
from drafting.alignment.teacher.data import VISITS
from drafting.alignment.teacher.scores import dense
from drafting.alignment.tree_batch import answer_rows
from drafting.trie.item_trie import ItemTrie

MODEL_INPUTS = ("input_ids", "position_ids", "attention_mask")


class DraftLoss:
    """The loss of one batch of `TeacherSamples`."""

    def __init__(self, settings: DraftSettings, levels: LevelCodes, trie: ItemTrie) -> None:
        self._settings = settings
        self._needs = NEEDS[settings.objective]
        self._levels = [torch.from_numpy(tokens) for tokens in levels.tokens]
        self._coverage = CoverageLevels(trie, levels)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        logits = model(**{name: batch[name] for name in MODEL_INPUTS if name in batch}).logits.flatten(0, 1).float()
        rows = answer_rows(batch["labels"])
        alpha = self._settings.alpha
        if not self._needs.trees:
            truth = self._truth(logits, rows, batch)
            return (1 - alpha) * truth + alpha * self._on_answers(logits[rows], batch) if self._needs.answers else truth
        nodes = logits[batch["node_row"]]
        known = self._on_lists(nodes, batch, self._compared) if self._settings.learns_lists else self._truth(logits, rows, batch)
        aligned = self._on_trees(nodes, batch)
        if self._settings.compares_answers:
            aligned = (aligned + self._on_answer_levels(logits[rows], batch)) / 2
        return (1 - alpha) * known + alpha * aligned

    def _truth(self, logits: Tensor, rows: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the users' items."""
        labels = batch["labels"].flatten()[rows + 1]
        return torch.nn.functional.cross_entropy(logits[rows], labels)

    def _on_answers(self, logits: Tensor, batch: Batch) -> Tensor:
        """WordKD and TVDKD, over the whole vocabulary; the teacher's probability outside the level is taken as zero."""
        level_of_row = self._level_of_answers(logits)
        teacher = torch.zeros_like(logits)
        for level, tokens in enumerate(self._levels):
            rows = (level_of_row == level).nonzero()[:, 0]
            taught = dense(batch["answer_codes"][rows], batch["answer_probabilities"][rows], len(tokens))
            teacher[rows[:, None], tokens.to(logits.device)] = taught
        if self._settings.objective == "wordkd":
            return objectives.forward_kl(logits, teacher)
        return objectives.total_variation(logits, teacher, torch.ones(len(logits), device=logits.device))

    def _on_answer_levels(self, logits: Tensor, batch: Batch) -> Tensor:
        """The AtSpeed objectives at the users' items, with equal weights."""
        once = torch.ones(len(logits), device=logits.device)
        return self._over_levels(logits, self._level_of_answers(logits), batch["answer_codes"], batch["answer_probabilities"], once)

    def _on_trees(self, logits: Tensor, batch: Batch) -> Tensor:
        """The objective on the teacher's lists."""
        match self._settings.objective:
            case "atspeed-c":
                return self._coverage.loss(logits, batch, self._settings)
            case "seqkd":
                return self._on_lists(logits, batch, self._levels)
        # A node counts once per list that contains it: the paper's sequences are the lists, with shared prefixes repeated. Those of a draft
        # count as well, so that the next one learns where it would go astray.
        passing = batch["node_taken"].sum(1) + batch[VISITS]
        return self._over_levels(logits, batch["node_level"], batch["node_codes"], batch["node_probabilities"], passing)

    def _over_levels(self, logits: Tensor, levels: Tensor, codes: Tensor, probabilities: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean of the distances of the rows' distributions, each over the codes of its level."""
        total = torch.zeros((), device=logits.device)
        weight = torch.zeros((), device=logits.device)
        for level, tokens in enumerate(self._compared):
            rows = (levels == level).nonzero()[:, 0]
            here = logits[rows][:, tokens.to(logits.device)]
            taught = dense(codes[rows], probabilities[rows], len(tokens))
            total = total + self._distance(here, taught, weights[rows]) * weights[rows].sum()
            weight = weight + weights[rows].sum()
        return total / weight.clamp(min=1)

    def _level_of_answers(self, logits: Tensor) -> Tensor:
        """The level of each row of answers: answers are whole identifiers."""
        return torch.arange(len(logits), device=logits.device) % len(self._levels)

    @property
    def _compared(self) -> list[Tensor]:
        """The levels whose distributions the AtSpeed objectives compare."""
        return self._levels if self._settings.last_level else self._levels[:-1]

    def _on_lists(self, logits: Tensor, batch: Batch, levels: list[Tensor]) -> Tensor:
        """SeqKD: cross-entropy of the tokens of the teacher's lists at `levels`."""
        taken = torch.zeros_like(logits)
        for level, tokens in enumerate(levels):
            rows = (batch["node_level"] == level).nonzero()[:, 0]
            codes = batch["node_codes"][rows]
            exists = codes < len(tokens)
            columns = tokens.to(logits.device)[codes.masked_fill(~exists, 0)]
            taken[rows] = torch.zeros_like(logits[rows]).scatter_add_(1, columns, batch["node_taken"][rows].masked_fill(~exists, 0.0))
        return objectives.list_cross_entropy(logits, taken)

    def _distance(self, logits: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        settings = self._settings
        if settings.objective == "atspeed-r":
            return objectives.total_variation(logits, teacher, weights, settings.temperature)
        return objectives.top_reverse_kl(logits, teacher, weights, settings.top, settings.density, settings.temperature)
