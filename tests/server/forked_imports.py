"""All that `atspeed serve`, its engine and its builders import, for the process that `tests.server.forked_server` forks from."""

import gc
from importlib import import_module

# A million objects that all stay: no look through them, here or in what is forked, would find anything.
gc.disable()

for module in (
    *("server.commands.app", "server.http.server", "server.catalogs.build", "server.catalogs.placing"),
    *("server.engine.main", "server.engine.loading", "server.engine.worker"),
    *("drafting.catalog.artefact", "drafting.catalog.checks", "verification.hosts.served_model", "verification.hosts.transformers"),
    *("server.control.sqlite", "server.histories.memory", "pydantic.v1", "uvicorn.loops.uvloop", "numpy.ma"),
    *("transformers.models.llama.modeling_llama", "transformers.models.t5.modeling_t5", "tests.server.forked_server"),
):
    import_module(module)

gc.freeze()
gc.enable()
