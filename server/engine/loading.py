"""From the engine's options to a loaded recommender, for both the engine process and the offline command."""

import transformers.utils

from drafting.catalog.catalog import Catalog
from server.engine.processors import usable_processors
from server.engine_settings import EngineOptions
from verification.recommender import Recommender

# A bar is not a line of a log.
transformers.utils.logging.disable_progress_bar()


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
        host=options.engine,
        dtype=options.dtype,
        threads=options.threads or usable_processors(),
        kv_memory_gib=options.kv_memory_gib,
        tensor_parallel=options.tensor_parallel,
        quantization=options.quantization,
        graph_requests=options.max_running if options.cuda_graphs else None,
        name=options.catalog_name,
        verify=options.verify_model,
        exact=options.exact,
        normalise=options.normalise,
    )
