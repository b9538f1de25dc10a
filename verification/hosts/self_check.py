"""The self-check at start: three prompts as token trees through a host, and as plain texts through transformers' own attention.

Invariant: it is to catch what the list of refusals misses, so it knows nothing of any feature of attention. It compares log-probabilities
after nodes that have ancestors, whose prompts share forwards with other requests, as they do while serving.
"""

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from drafting.array_types import IntArray
from drafting.beam.forward import ForwardPart, forward_batch
from drafting.beam.model import TreeModel
from drafting.beam.tree import SequenceState, TokenTree
from drafting.errors import MODEL_ERRORS, first_line
from drafting.model_files import ModelFiles
from drafting.trie.token_set import TokenSet
from verification.hosts.adapter import load_reference
from verification.hosts.checkpoint import HostError, has_encoder, lacks_memory
from verification.hosts.layers import attention_of
from verification.hosts.transformers import TransformersHost
from verification.hosts.weights import weight_files

logger = logging.getLogger(__name__)

VerifyModel = Literal["auto", "always", "never"]
# Weights that may be read or copied a second time without being asked to.
MOST_BYTES = 2**31
# A short prompt, one of an item or so more, and one that reaches beyond most windows of small models.
PROMPTS = (5, 13, 96)
# Parents of the nodes of each level, among those of the level before; every node above the last level has a child.
LEVELS = ((0, 0), (0, 1, 1), (0, 1, 2, 2))
# Root mean square of the differences of log-probabilities that rounding explains.
ROUNDING = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
# Nodes of each prompt's tree.
NODES = sum(map(len, LEVELS))
DEPTH = len(LEVELS)
# Tokens onto which rows are projected.
PROJECTED = 256
# What each forward computes: parts of the prompts' sequences by the first and last depth; 0 is the prompt.
Forwards = Sequence[Sequence[tuple[int, int, int]]]
FORWARDS: Forwards = (((0, 0, 0), (1, 0, 0)), ((2, 0, 0), (0, 1, 3)), ((1, 1, 1), (2, 1, 3)), ((1, 2, 3),))


@dataclass(frozen=True)
class Question:
    """A prompt with a tree, and its leaves' paths as plain texts.

    Attributes:
        sequence: prompt and nodes; the nodes follow their root.
        paths: `[leaves, 1 + depth]` int64, index in the sequence of the root and of each node of a leaf's path.
        texts: `[leaves, prompt + depth]` int64, tokens of the prompt and of each path.
    """

    sequence: SequenceState
    paths: IntArray
    texts: Tensor


def verify_model(host: TreeModel, model_dir: Path, longest: int, dtype: torch.dtype, mode: VerifyModel, base: Path | None = None) -> None:
    """Compare a host with transformers on the same checkpoint, and log the difference.

    A transformers host is compared with its own weights, in float32 if a copy of them is small; another host with a model that
    transformers loads for this, unless it is large and `mode` is "auto".

    Args:
        longest: maximum number of tokens of a sequence.
        base: base model of an adapter; by default the one that its configuration names.

    Raises:
        HostError: the difference is more than rounding, or the comparison fails; the message is a sentence.
    """
    if mode == "never":
        return
    files = ModelFiles.find(model_dir, base)
    large = sum(path.stat().st_size for path in weight_files(files.weights)) > MOST_BYTES
    if isinstance(host, TransformersHost):
        model = host.model
        # Quantized weights can't be converted.
        quantized = model.config.to_dict().get("quantization_config") is not None
        if dtype != torch.float32 and not quantized and (not large or mode == "always"):
            host = _in_float32(host, mode)
            model = host.model
    elif large and mode == "auto":
        logger.info(
            "Self-check: left out, because the model is large and would be loaded a second time; "
            "`atspeed serve --verify-model always` does it."
        )
        return
    else:
        try:
            model = load_reference(files, dtype)
        except HostError as error:
            raise HostError(f"The model can't be verified, which `atspeed serve --verify-model never` would leave out: {error}") from error
    try:
        compare(host, model, longest)
    except MODEL_ERRORS as error:
        if isinstance(error, HostError):
            raise
        advice = "lower --kv-memory-gib" if lacks_memory(error) else "try the other --engine, where the command has one"
        raise HostError(
            f"The self-check of the model in {model_dir} failed ({type(error).__name__}: {first_line(error)}): {advice}."
        ) from error


def _in_float32(host: TransformersHost, mode: VerifyModel) -> TransformersHost:
    """A host of a copy of the model in float32, with slots for the questions; the very same where there is no memory for it.

    Raises:
        HostError: there is none, and `mode` is "always".
    """
    try:
        return type(host).from_model(copy.deepcopy(host.model).float(), sum(PROMPTS) + len(PROMPTS) * NODES)
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        if mode == "always":
            raise HostError(
                "The model can't be verified, for there is too little memory for a copy of it in float32: lower --kv-memory-gib, or leave "
                "--verify-model always out."
            ) from error
    logger.info("Self-check: the model is compared as it is, for there is too little memory for a copy of it in float32.")
    return host


@torch.inference_mode()
def compare(host: TreeModel, model: PreTrainedModel, longest: int) -> None:
    """Compare the log-probabilities that a host and a model of transformers give after each root and node.

    Raises:
        HostError: they differ by more than rounding.
    """
    started = time.perf_counter()
    tree = TokenTree(host.total_slots, DEPTH, host.device)
    questions = make_questions(host, tree, longest, model.config.get_text_config().vocab_size)
    if not questions:
        # Too little memory for a list, too, which the engine says in its own words.
        return
    answers = ask(host, tree, questions, FORWARDS)
    differences = [torch.zeros((), device=model.device)]
    for question, answer in zip(questions, answers, strict=True):
        plain = _plain(model, question)
        ours = answer[torch.from_numpy(question.paths - question.sequence.root)].to(plain)
        # Scores that are not finite spread to a prompt's whole tree; its requests fail by themselves.
        if plain.isfinite().all():
            expected, chosen = plain.log_softmax(-1), torch.from_numpy(projected(plain.shape[-1]))
            for found, right in ((ours[..., : len(chosen)], expected[..., chosen.to(plain.device)]), (ours[..., len(chosen) :], expected)):
                differences.append((found - right).square().mean())
    difference, limit = float(torch.stack(differences).max().sqrt()), ROUNDING[model.dtype]
    seconds = time.perf_counter() - started
    logger.info("Self-check: log-probabilities differ by %.2g from transformers' (limit %.2g; %.2f s).", difference, limit, seconds)
    # A difference that is not a number is no match either.
    if not difference <= limit:
        raise HostError(
            f"Lists of this model ({model.config.model_type}) would be wrong: in the self-check its log-probabilities differ by "
            f"{difference:.2g} from those of transformers' own attention, where rounding explains {limit:.2g}. Try the other --engine, "
            "where the command has one; `atspeed serve --verify-model never` would serve it as it is."
        )


def make_questions(host: TreeModel, tree: TokenTree, longest: int, vocabulary: int) -> list[Question]:
    """A prompt of each of the lengths with its tree, in the slots of an idle host; none if there are too few.

    Args:
        longest: maximum number of tokens of a sequence.
    """
    room = min(longest - DEPTH, host.total_slots // len(PROMPTS) - NODES)
    if room < 1 + host.has_encoder:
        return []
    rng = np.random.default_rng(0)
    free = np.split(rng.permutation(host.total_slots)[: len(PROMPTS) * (room + NODES)], len(PROMPTS))
    return [_question(tree, slots, min(length, room), vocabulary, rng) for slots, length in zip(free, PROMPTS, strict=True)]


def _question(tree: TokenTree, free: IntArray, length: int, vocabulary: int, rng: np.random.Generator) -> Question:
    """Draw a prompt and a tree of random tokens, and write them to the tree's tables."""
    free, nodes = free[NODES:][:length], free[:NODES]
    sequence, tokens = SequenceState(free, np.zeros(len(tree.token), np.int64)), rng.integers(vocabulary, size=length + NODES)
    tree.add_prompt(*_on(tree, free, tokens[:length]))
    paths = np.array([[sequence.root]])
    for depth, parents in enumerate(LEVELS, start=1):
        first = sequence.length - length
        slots = nodes[first : first + len(parents)]
        paths = paths[list(parents)]
        indices = sequence.append(slots, depth, np.zeros(len(slots), np.int64))
        of_nodes = _on(tree, slots, sequence.slots[paths[:, -1]], tokens[indices], np.full(len(slots), depth), indices)
        tree.add_nodes(of_nodes[0], parents=of_nodes[1], tokens=of_nodes[2], depths=of_nodes[3], indices=of_nodes[4])
        paths = np.concatenate([paths, indices[:, None]], axis=1)
    prompt = np.tile(tokens[:length], (len(paths), 1))
    return Question(sequence, paths, torch.from_numpy(np.concatenate([prompt, tokens[paths[:, 1:]]], axis=1)))


def _on(tree: TokenTree, *arrays: IntArray) -> list[Tensor]:
    return [torch.from_numpy(array).to(tree.token.device) for array in arrays]


def ask(host: TreeModel, tree: TokenTree, questions: Sequence[Question], forwards: Forwards) -> list[Tensor]:
    """Log-probabilities `[1 + nodes, some + vocabulary]` float32 after each question's root and nodes.

    First those of the tokens `projected`, made as while serving a large vocabulary, and then all of them.
    """
    answers: list[list[Tensor]] = [[] for _ in questions]
    for forward in forwards:
        parts = []
        for number, first, last in forward:
            sequence = questions[number].sequence
            indices = np.flatnonzero((sequence.depths >= first) & (sequence.depths <= last))
            parts.append(ForwardPart(sequence, indices, int(np.count_nonzero(indices >= sequence.root))))
        rows = host.score(forward_batch(tree, parts, host.has_encoder))
        everything = rows.logits().float().log_softmax(1)
        some = TokenSet(projected(everything.shape[1]), host.device)
        log_probs = torch.cat([rows.project(some) - rows.log_normaliser()[:, None], everything], 1)
        for (number, _, _), answer in zip(
            forward, log_probs.tensor_split(np.cumsum([part.outputs for part in parts])[:-1].tolist()), strict=True
        ):
            answers[number].append(answer)
    return [torch.cat(answer) for answer in answers]


def projected(vocabulary: int) -> IntArray:
    """Token ids with gaps, up to the end of a vocabulary."""
    return np.unique(np.linspace(0, vocabulary - 1, PROJECTED).astype(np.int64))


def _plain(model: PreTrainedModel, question: Question) -> Tensor:
    """Logits `[leaves, 1 + depth, vocabulary]` float32 of the last tokens of each text, by the library's own attention."""
    texts = question.texts.to(model.device)
    positions = torch.arange(texts.shape[1], device=model.device).expand_as(texts)
    read = question.sequence.root
    with attention_of(model, "eager"):
        if has_encoder(model.config):
            logits: Tensor = model(input_ids=texts[:, :read], decoder_input_ids=texts[:, read:], use_cache=False).logits
        else:
            logits = model(input_ids=texts, position_ids=positions, use_cache=False).logits
    return logits[:, -(1 + DEPTH) :].float()
