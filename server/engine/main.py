"""The engine process from its start to its end: loads the models, warms them up, tells the parent that it is ready, and serves.

Invariant: the parent is told in a sentence what keeps it from serving; and it never outlives its parent.

Run by `server.engine.supervisor`: `python -m server.engine.main SOCKET_ADDRESS OPTIONS_JSON`.
"""

import gc
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drafting.beam.rule import Normalisation
from drafting.catalog.catalog import CatalogError
from drafting.catalog.loading import load_catalog
from drafting.errors import SetupError
from server.engine.channel import Channel
from server.engine.parent import die_with_parent
from server.engine.prompts import write_prompts
from server.engine.shared_memory import write_down
from server.engine_settings import EngineOptions
from server.messages import Alive, FromEngine, Ready, StartFailure
from server.metrics.logs import configure_logs
from server.scheduling.step_engine import StepEngine

if TYPE_CHECKING:
    from server.engine.worker import EngineWorker
    from verification.recommender import Recommender

# As a program it has another name, which says nothing in a log.
logger = logging.getLogger("server.engine.main")


def warm_up(source: "Recommender", engine: StepEngine) -> None:
    """Warm up with one request, because first calls are slow.

    The scheduler is not asked: a plan for narrow lists would refuse this one, which it can draft for as well as for any other.

    Raises:
        SetupError: the engine is too small for a single list, or the model's scores are not finite.
    """
    request = source.request("warm-up", source.sample([0]), min(len(source.catalog), 10))
    if not engine.fits(request):
        raise SetupError(
            f"The memory for keys and values holds only {engine.total_slots} tokens, too few for a list of {request.k} after a history of "
            "one item: raise --kv-memory-gib."
        )
    engine.add(request)
    while not (report := engine.step()).finished:
        if report.failed:
            raise SetupError(
                f"The model's scores are not finite (NaN or infinite) after a history of {source.catalog.item_ids[0]!r}, the first item of "
                "the catalog: its weights are damaged, or its numbers overflow in this precision (see --dtype)."
            )


def serve(channel: Channel, options: EngineOptions) -> int:
    """Load the model and run the step loop; return the exit status of the process."""
    # Imports and loading make millions of objects that all stay: collecting among them takes seconds and frees nothing.
    gc.disable()
    # The model libraries take seconds to import: after the signals are set, and never in a process that only asks for the messages.
    from server.engine.loading import beam_memory, faster_precision, load_recommender, memory_told
    from server.engine.worker import EngineWorker

    started = time.monotonic()

    def tell(message: FromEngine) -> None:
        channel.send(msgspec.msgpack.encode(message))

    with ExitStack() as stack:
        try:
            tell(Alive("loading the model"))
            recommender = load_recommender(options, load_catalog(options.catalog, check=True))
            loaded = stack.enter_context(ExitStack())
            loaded.callback(recommender.close)
            tell(Alive("making its first list"))
            with memory_told():
                warm_up(recommender, recommender.engine)
                if options.tensor_parallel > 1:
                    write_down(Path(tempfile.gettempdir()))
                # It measures forwards, unless the planner has done so.
                worker = EngineWorker(channel, recommender, options)
            stack.callback(worker.close)
            # A catalog that is replaced must leave nothing behind: from here on only the worker holds what was loaded.
            loaded.pop_all()
        except SetupError as error:
            tell(StartFailure(str(error), isinstance(error, CatalogError)))
            return 1
        signal.signal(signal.SIGTERM, lambda *_: worker.drain())
        # What is loaded stays for ever: without it in the collector's generations a full collection costs microseconds, not a step's time.
        gc.freeze()
        gc.enable()
        worker.send(_ready(recommender, worker, options))
        logger.info(beam_memory(recommender.engine, options.kv_memory_gib))
        if (advice := faster_precision(recommender)) is not None:
            logger.info(advice)
        if (over := recommender.engine.normalise) is not Normalisation.VOCABULARY:
            logger.info("Scores are normalised over the %s of each prefix in the catalog (--normalise %s)", over, options.normalise)
        logger.info("%s is ready on %s after %.1f s", recommender.model_name, options.engine, time.monotonic() - started)
        del recommender
        worker.run()
    return 0


def _ready(recommender: "Recommender", worker: "EngineWorker", options: EngineOptions) -> Ready:
    """What the parent has to know of what was loaded."""
    thinking, engine, cost = recommender.prompts.thinking, recommender.engine, recommender.target_cost
    return Ready(
        model=recommender.model_name,
        catalog_version=recommender.catalog.version,
        catalog_handle=options.catalog_handle,
        text_tokens=0 if thinking is None else thinking.max_tokens,
        end_tokens=0 if thinking is None else thinking.most_tokens - thinking.max_tokens,
        places=worker.places_limit,
        max_items=recommender.prompts.max_items,
        total_slots=engine.total_slots,
        drafts=engine.has_draft,
        identifier_length=recommender.catalog.identifier_length,
        forward_seconds=cost.fixed,
        token_seconds=cost.mean_per_token(worker.budget.tokens),
        step_tokens=worker.budget.tokens,
        precision=recommender.precision,
        normalised=engine.normalise,
        prompts=write_prompts(recommender.prompts, Path(tempfile.gettempdir())),
        widest_beam=engine.plan.widest_beam,
        drafted_items=engine.plan.items,
        longest_step_seconds=cost.seconds(options.max_tokens_per_step),
    )


def main(arguments: Iterable[str]) -> int:
    """Entry point of the process: socket address and options in JSON."""
    address, options_json = arguments
    options = EngineOptions.model_validate_json(options_json)
    if not die_with_parent(options.parent):
        return 1
    # Ctrl-C reaches every process of the terminal; the parent decides when this one stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logs(options.log_level, "engine", options.log_format)
    with Channel.connect(address) as channel:
        try:
            return serve(channel, options)
        finally:
            channel.finish()


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # All is closed, and the kernel takes the rest at once: the model libraries take a second to be taken apart object by object.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
