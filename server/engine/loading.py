"""From the engine's options to a loaded recommender, for both the engine process and the offline command."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers.utils

from drafting.catalog.catalog import Catalog
from drafting.errors import SetupError, first_line
from server.engine.processors import usable_processors
from server.engine_settings import EngineOptions
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.checkpoint import lacks_memory
from verification.recommender import Recommender
from verification.slots.engine_slots import widest_beam

# Instructions for products in bfloat16, as torch calls them.
BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")
# A bar is not a line of a log.
transformers.utils.logging.disable_progress_bar()


@contextmanager
def memory_told() -> Iterator[None]:
    """Tell in a sentence that there is too little memory.

    Raises:
        SetupError: there is; all other errors stay as they are.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise SetupError(
            "There is too little memory for the models, their keys and values, and what forwards take beside these: lower --kv-memory-gib "
            f'("{first_line(error)}").'
        ) from error


@memory_told()
def load_recommender(options: EngineOptions, catalog: Catalog) -> Recommender:
    """Load what the options name.

    Raises:
        SetupError: the parts are unusable or do not fit together.
    """
    return Recommender.load(
        options.target,
        catalog,
        base=options.base,
        draft=options.draft,
        draft_base=options.draft_base,
        plan=options.plan,
        draft_items=options.draft_items,
        host=options.engine,
        dtype=options.dtype,
        threads=options.threads or usable_processors(),
        kv_memory_gib=options.kv_memory_gib,
        tensor_parallel=options.tensor_parallel,
        quantization=options.quantization,
        graph_requests=options.max_running if options.cuda_graphs else None,
        name=options.catalog_handle,
        verify=options.verify_model,
        exact=options.exact,
        normalise=options.normalise,
        max_beam_width=options.max_beam_width,
    )


def beam_memory(engine: SpeculativeBeamEngine, kv_memory_gib: float) -> str:
    """What is set aside for beams and how wide they may be, as a sentence."""
    nodes, widest = engine.slots.nodes.total, engine.max_beam_width
    keys, table = 2**10 * kv_memory_gib * nodes / engine.total_slots, 4 * nodes * max(engine.trie.max_children) / 2**20
    line = (
        f"Beams of up to {widest} (--max-beam-width): {nodes:,} of {engine.total_slots:,} KV slots ({keys:,.0f} MiB) are for their "
        f"prefixes, whose log-probabilities take up to {table:,.0f} MiB more"
    )
    if (fits := widest_beam(engine.trie, nodes, widest)) < widest:
        line += f"; they hold beams of up to {fits}: raise --kv-memory-gib for wider ones"
    return line


def faster_precision(recommender: Recommender) -> str | None:
    """What a CPU could do in bfloat16 that is done in float32, as a sentence; None if there is nothing."""
    if recommender.engine.target.device.type != "cpu" or recommender.precision.dtype != "float32":
        return None
    if (found := next((name for name in BFLOAT16 if torch.cpu.get_capabilities().get(name)), None)) is None:
        return None
    return f"This CPU multiplies faster in bfloat16 ({found}) than in float32: --dtype bfloat16 makes nearly the same lists sooner"
