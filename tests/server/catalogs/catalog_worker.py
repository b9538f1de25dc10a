"""An engine process without a model, whose behaviour depends on the catalog that it loads: the `target` of its options is a JSON file that
names one by the version of the catalog's contents; `fine` is the default."""

import json
import sys
import time
from pathlib import Path

import msgspec

from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from server.engine.channel import Channel
from server.engine_settings import EngineOptions
from server.messages import CatalogLoaded, FailedList, FinishedList, FromEngine, LoadCatalog, Progress, Ready, Shutdown, StartFailure
from server.submit import Submit
from tests.server.engine_end import messages_of
from tests.server.fake_ready import READY
from verification.result import BeamResult, RankedItem, Usage


def list_of(catalog: Catalog, submit: Submit, behaviour: str) -> FinishedList:
    leaves = [catalog.trie.level_starts[-2] + leaf for leaf in range(submit.k)]
    items = [RankedItem(item, -float(rank), rank) for rank, leaf in enumerate(leaves, 1) for item in catalog.trie.items_of(leaf).tolist()]
    if behaviour == "invents":
        items[-1] = RankedItem(len(catalog), -99.0, submit.k)
    return FinishedList(BeamResult(submit.request_id, tuple(items), Usage(1, 0, 1)), 0.0, 0.0)


def wait_for(folder: Path, name: str, told: str = "waiting") -> None:
    """Say that this process waits, and wait for a file."""
    (folder / told).touch()
    while not (folder / name).exists():
        time.sleep(0.01)


def main(address: str, options_json: str) -> int:
    options = EngineOptions.model_validate_json(options_json)
    behaviours: dict[str, str] = json.loads(options.target.read_text())
    catalogs = {options.catalog_handle: load_catalog(options.catalog)}
    version = catalogs[options.catalog_handle].version
    with Channel.connect(address) as channel:

        def send(message: FromEngine) -> None:
            channel.send(msgspec.msgpack.encode(message))

        behaviour = behaviours.get(version, behaviours.get("all", "fine"))
        if behaviour == "crashes":
            return 3
        if behaviour == "refuses":
            send(StartFailure("The catalog is made of cheese.", is_catalog=True))
            return 1
        if behaviour == "starts slowly":
            wait_for(options.target.parent, "go")
        ready: Ready = msgspec.structs.replace(READY, catalog_version=version, catalog_handle=options.catalog_handle)
        send(ready)
        for message in messages_of(channel):
            match message:
                case Shutdown():
                    return 0
                case LoadCatalog(handle, path):
                    catalogs[handle] = load_catalog(Path(path))
                    behaviour = behaviours.get(catalogs[handle].version, "fine")
                    if behaviour == "dies when loaded":
                        return 4
                    if behaviour == "refuses to be loaded":
                        send(CatalogLoaded(handle, "It has too long prompts."))
                        continue
                    if behaviour == "names its model":
                        send(CatalogLoaded(handle, f"The model in {options.target} reads {path} badly."))
                        continue
                    if behaviour == "loads slowly":
                        wait_for(options.target.parent, "load", told="loading")
                    send(CatalogLoaded(handle))
                case Submit() as submit:
                    if behaviour == "dies when asked":
                        return 5
                    if behaviour == "not finite":
                        failed = [FailedList(submit.request_id, not_finite=True)]
                        send(Progress([], failed, [], running=0, waiting=0, used_slots=0))
                        continue
                    send(Progress([list_of(catalogs[submit.catalog], submit, behaviour)], [], [], running=0, waiting=0, used_slots=0))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
