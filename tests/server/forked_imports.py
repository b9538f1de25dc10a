"""All that `atspeed serve`, its engine and its builders import, for the process that `tests.server.forked_server` forks from."""

from importlib import import_module

for module in (
    *("server.cli", "server.http.server", "server.catalogs.build", "server.catalogs.placing"),
    *("server.engine.main", "server.engine.loading", "server.engine.worker"),
    *("drafting.catalog.artefact", "drafting.catalog.checks", "verification.hosts.served_model", "verification.hosts.transformers"),
    *("transformers.models.llama.modeling_llama", "transformers.models.t5.modeling_t5", "tests.server.forked_server"),
):
    import_module(module)
