"""Coverage: the loss of a batch of trees against one that walks every tree node by node."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from drafting.alignment import objectives
from drafting.alignment.coverage import CoverageLevels
from drafting.alignment.data.samples import Batch
from drafting.alignment.levels import LevelCodes
from drafting.alignment.settings import DraftSettings
from drafting.alignment.teacher.samples import TeacherSamples
from drafting.alignment.teacher.scores import dense
from drafting.catalog.loading import load_catalog
from drafting.trie.item_trie import ItemTrie
from tests.drafting.alignment.teachers import write_teacher
from tests.models import random_catalog


@pytest.fixture(scope="module", params=[2, 3])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ItemTrie, LevelCodes]:
    catalog = None if request.param == 2 else random_catalog(items=60, depth=3, codes=5)
    folder = write_teacher(tmp_path_factory.mktemp("teacher") / "data", catalog=catalog)
    ids = load_catalog(folder / "catalog.jsonl").token_ids(AutoTokenizer.from_pretrained(folder).get_vocab())
    return folder, ItemTrie.build(ids), LevelCodes.of(ids)


def walked(logits: Tensor, batch: Batch, trie: ItemTrie, levels: LevelCodes, settings: DraftSettings) -> float:
    """The same loss, one node and one child at a time."""
    log_q = logits.log_softmax(1)
    scores = dict.fromkeys((batch["node_level"] == 0).nonzero()[:, 0].tolist(), (0.0, 0.0))
    losses = []
    for level in range(trie.depth - 1):
        per_tree: dict[int, list[tuple[float, float]]] = {}
        tokens = levels.tokens[level].tolist()
        children_of: dict[tuple[int, int], tuple[float, float]] = {}
        for node in (batch["node_level"] == level).nonzero()[:, 0].tolist():
            p = dense(batch["node_codes"][node][None], batch["node_probabilities"][node][None], len(tokens))[0]
            place = int(batch["node_trie"][node])
            for child in range(int(trie.child_offsets[place]), int(trie.child_offsets[place + 1])):
                token = int(trie.token[child])
                q, t = float(log_q[node, token]), float(p[tokens.index(token)].clamp(min=objectives.SMALLEST).log())
                children_of[node, child] = (scores[node][0] + q, scores[node][1] + t)
                per_tree.setdefault(int(batch["node_tree"][node]), []).append(children_of[node, child])
        for node in (batch["node_level"] == level + 1).nonzero()[:, 0].tolist():
            scores[node] = children_of[int(batch["node_parent"][node]), int(batch["node_trie"][node])]
        of_level = []
        for continuations in per_tree.values():
            ranked = sorted(continuations, key=lambda pair: -pair[1])
            wanted, others = ranked[: settings.beam_width], sorted((q for q, _ in ranked[settings.beam_width :]), reverse=True)
            place = max(settings.reach - len(wanted), 0)
            if place < len(others):
                of_level.append(others[place] - min(q for q, _ in wanted) + settings.margin)
        losses.append(torch.nn.functional.softplus(torch.tensor(of_level)).mean() if of_level else torch.tensor(0.0))
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize(("beam_width", "reach"), [(1, 1), (1, 2), (2, 2), (2, 4)])
def test_the_loss_is_that_of_walking_the_trees(folder: tuple[Path, ItemTrie, LevelCodes], beam_width: int, reach: int) -> None:
    path, trie, levels = folder
    samples = TeacherSamples([path / "shard-00000.safetensors"], trie, 0, trees=True)
    batch = samples.__getitems__([0, 7, 3, 20])
    settings = DraftSettings(objective="atspeed-c", beam_width=beam_width, reach=reach)
    generator = torch.Generator().manual_seed(0)
    # No two probabilities are equal, so that there is one right answer to which beams the teacher keeps.
    batch["node_probabilities"] = torch.rand(batch["node_probabilities"].shape, generator=generator) / 10
    logits = torch.randn(len(batch["node_row"]), int(trie.token.max()) + 5, generator=generator)
    loss = CoverageLevels(trie, levels).loss(logits.requires_grad_(), batch, settings)
    assert loss.item() == pytest.approx(walked(logits.detach(), batch, trie, levels, settings), abs=1e-4)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert bool(logits.grad.any()) is (loss.item() > 0)
