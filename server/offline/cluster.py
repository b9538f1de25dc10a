"""Parts of a folder of lists, made by the workers of a Ray cluster through Ray Data.

A worker is an actor that holds the model; a block goes to whichever is free. Ray starts an actor that has died anew and gives its block to
another. Ray Data's own readers and writers are not used: they name files by the run, not by what is in them, so a run could not be
continued.

Invariant: only a block's place and a number go through Ray. Users and lists go directly between the files and the workers.
"""

import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from drafting.errors import SetupError, first_line
from server.metrics.logs import configure_logs
from server.offline.folder import FileChanged
from server.offline.in_parts import PartMaker, PartTask
from server.offline.lists import OfflineError
from server.offline.made import Made
from server.offline.purpose import directories_of
from server.offline.users import Block
from server.settings import Settings

_GIB = 1 << 30
# A worker's own use: libraries, the catalog, what a forward needs.
_OVERHEAD_GIB = 1.0
_MOST_CORES = 4
# A block that has cost so many workers their life costs the run.
_RETRIES = 3
_KNOCK_SECONDS = 5


class Worker:
    """An actor with a model. What it can't do is told in its answers, for Ray tells of exceptions with ten lines around each."""

    def __init__(self, task: PartTask) -> None:
        configure_logs("warning", "worker")
        self._problem = ""
        try:
            self._maker = PartMaker(task)
        except SetupError as error:
            self._problem = _on_node(error)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Make the part of a block; the answer is what was made (`Made`), and `problem`, which is empty or a sentence."""
        try:
            made = Made() if self._problem else sum(self._maker.make(Block(**row)), Made())
        except SetupError as error:
            return asdict(Made()) | {"problem": _on_node(error)}
        return asdict(made) | {"problem": self._problem}


def _on_node(error: SetupError) -> str:
    # A directory of the same path on each node holds copies, which have other times.
    more = " All workers must see the very files of --input: copies of them will not do." if isinstance(error, FileChanged) else ""
    return f"A worker on {socket.gethostname()} can't go on: {error}{more}"


@dataclass(frozen=True)
class Needs:
    """Cores, GPUs and bytes of memory that one worker takes of a node."""

    cores: int
    gpus: int
    memory: int

    def fits(self, node: Mapping[str, float]) -> int:
        """How many workers have room in a node's resources."""
        counts = [node.get("CPU", 0) // self.cores, node.get("memory", 0) // self.memory]
        return int(min(*counts, *([node.get("GPU", 0) // self.gpus] if self.gpus else [])))

    def __str__(self) -> str:
        gpu = f"{self.gpus} GPU, " if self.gpus else ""
        return f"{gpu}{self.cores} cores and {self.memory / _GIB:.1f} GiB of memory"


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster as `Workers`.

    Attributes:
        address: of the cluster; `auto` for the one of this machine or of RAY_ADDRESS, else one that is started here and ends with the run.
        workers: number of workers; None for as many as there is room for.
    """

    address: str
    workers: int | None = None

    def make(self, task: PartTask, blocks: Sequence[Block]) -> Iterator[Made]:
        """See `in_parts.Workers`."""
        ray = _import_ray()
        started = not ray.is_initialized()
        if started:
            self._connect(ray)
        try:
            yield from self._make(ray, task, blocks)
        except ray.exceptions.RayError as error:
            raise OfflineError(f"The run on Ray has failed: {_reason(error)} The same command goes on with what is missing.") from error
        finally:
            if started:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        address = None if self.address == "auto" else self.address
        if address is not None and address != "local":
            self._knock(address)
        try:
            with _silent():
                ray.init(address, include_dashboard=None if address else False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise OfflineError(f"No Ray cluster can be used at {self.address}: {first_line(error).rstrip('.')}.") from error

    def _knock(self, address: str) -> None:
        """Ray itself tries for minutes, and then ends the process."""
        host, _, port = address.rpartition("://")[2].rpartition(":")
        try:
            socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()
        except (OSError, ValueError, OverflowError) as error:
            raise OfflineError(f"No Ray cluster answers at {address}, which should be HOST:PORT of one, or auto.") from error

    def _make(self, ray: Any, task: PartTask, blocks: Sequence[Block]) -> Iterator[Made]:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = needs_of(task.settings, nodes)
        room = sum(map(needs.fits, nodes))
        if not room and self.workers is None:
            raise OfflineError(
                f"No node of the Ray cluster has room for a worker, which takes {needs}: give --threads or --kv-memory-gib that fit, or "
                "--ray-workers to wait for a cluster that grows."
            )
        task = replace(task, settings=task.settings.model_copy(update={"threads": needs.cores}))
        size = min(self.workers or room, len(blocks))
        # Each row is a block of Ray's too, so that workers get them one by one.
        rows = ray.data.from_items([asdict(block) for block in blocks], override_num_blocks=len(blocks))
        with warnings.catch_warnings():
            # Ray 2.64 takes no limit of retries any more, so it is not among those that may be installed.
            warnings.simplefilter("ignore", category=DeprecationWarning)
            made = _mapped(ray, rows, task, size, needs)
        for answer in made.iter_rows():
            if answer["problem"]:
                raise OfflineError(answer["problem"])
            yield Made(answer["lists"], answer["failed"], answer["example"])


def _mapped(ray: Any, rows: Any, task: PartTask, size: int, needs: Needs) -> Any:
    return rows.map(
        Worker,
        fn_constructor_args=(task,),
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
        num_cpus=needs.cores,
        num_gpus=needs.gpus,
        memory=needs.memory,
        max_task_retries=_RETRIES,
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Standard error goes nowhere: Ray's parts in C++ write there what no setting of logs stops."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def needs_of(settings: Settings, nodes: Sequence[Mapping[str, float]]) -> Needs:
    """The needs of one worker: the GPUs of a model where there are some, else some cores, so that a node with many runs several models.

    Raises:
        ModelFilesError: an adapter's base is not there.
    """
    gpus = settings.tensor_parallel if any(node.get("GPU", 0) >= 1 for node in nodes) else 0
    widest = max((int(node.get("CPU", 0)) for node in nodes), default=1)
    cores = settings.threads or (1 if gpus else max(1, min(_MOST_CORES, widest)))
    # On a GPU the weights pass through the host's memory, and keys and values don't.
    weights = sum(_weights(directory) for directory in directories_of(settings) if directory is not None)
    rest = _OVERHEAD_GIB + (0 if gpus else settings.kv_memory_gib * settings.tensor_parallel)
    return Needs(cores, gpus, int(weights * 1.25 + rest * _GIB))


def _weights(directory: Path) -> int:
    # Pickles are read where there is nothing else.
    files = [*directory.glob("*.safetensors")] or directory.glob("pytorch_model*.bin")
    return sum(file.stat().st_size for file in files)


def _reason(error: Exception) -> str:
    """The sentence in what Ray says of a failure: the last line of the worker's own trace, or the first of Ray's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{(lines[-1] if 'Traceback' in str(error) else first_line(error)).rstrip('.')}."


def _import_ray() -> Any:
    """Ray, which says nothing to the terminal and sends nothing home."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as missing:
        raise OfflineError(f"--ray needs Ray Data ({missing}): pip install 'atspeed-server[ray]'.") from missing
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray
