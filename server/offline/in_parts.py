"""A folder of lists, part by part, by this process or by the workers of a cluster.

Invariant: a part is made from its block alone, so parts are the same in any order and by any number of workers.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from tqdm import tqdm

from server.offline.lists import ListMaker, OfflineError
from server.offline.made import Made
from server.offline.parts import Form, Parts
from server.offline.prints import check_prints
from server.offline.questions import Defaults
from server.offline.user_files import UserFile
from server.offline.users import Block, read_rows
from server.settings import Settings

_CONTINUATION = "The same command goes on from here."


@dataclass(frozen=True)
class PartTask:
    """All that making a part needs besides its block.

    Attributes:
        catalog_version: version of the catalog that the run began with.
        prints: print of each of the models' files that the run began with, by path (`server.offline.prints`).
    """

    settings: Settings
    defaults: Defaults
    files: tuple[UserFile, ...]
    place: str
    form: Form
    catalog_version: str
    prints: Mapping[str, str]


class Workers(Protocol):
    """Processes that make parts."""

    def make(self, task: PartTask, blocks: Sequence[Block]) -> Iterator[Made]:
        """Make the part of each block, in any order; yield what is made, list by list or in larger pieces.

        Raises:
            SetupError: there are no workers, or one of them can't do the task.
        """


class PartMaker:
    """A model that makes parts."""

    def __init__(self, task: PartTask) -> None:
        """
        Raises:
            SetupError: the model or the catalog can't be loaded, or it is another one than the task's.
        """
        self._task = task
        self._parts = Parts(task.place, task.form)
        check_prints(task.prints, task.settings)
        self._maker = ListMaker(task.settings, task.defaults)
        if self._maker.catalog.version != task.catalog_version:
            self._maker.close()
            raise OfflineError(f"{task.settings.catalog} is not the catalog (version {task.catalog_version}) that the run began with.")

    def make(self, block: Block) -> Iterator[Made]:
        """Make the part of a block; yields what each of its users got, and the part is there when the iteration ends.

        Raises:
            SetupError: the users can't be read, or the part can't be written.
        """
        lines = []
        for line in self._maker.lines(read_rows(self._task.files, block)):
            lines.append(line)
            made, self._maker.made = self._maker.made, Made()
            yield made
        self._parts.write(block.part, lines)

    def close(self) -> None:
        """Free the model."""
        self._maker.close()


class Here:
    """This process as the only worker."""

    def make(self, task: PartTask, blocks: Sequence[Block]) -> Iterator[Made]:
        """See `Workers`."""
        with closing(PartMaker(task)) as maker:
            for block in blocks:
                yield from maker.make(block)


def make_parts(task: PartTask, blocks: Sequence[Block], purpose: str, workers: Workers | None) -> None:
    """Make the parts that are not there yet, and show the progress.

    Args:
        purpose: everything that the parts follow from.
        workers: None for this process.

    Raises:
        SetupError: as `Workers.make`, or the folder holds another run, or not all that workers have made; or none of the users got a list.
    """
    parts = Parts(task.place, task.form)
    seed = parts.begin(purpose, task.defaults.rule.seed)
    task = replace(task, defaults=replace(task.defaults, rule=replace(task.defaults.rule, seed=seed)))
    done = parts.done()
    missing = [block for block in blocks if block.part not in done]
    total = sum(block.users for block in blocks)
    before = total - sum(block.users for block in missing)
    if before:
        print(f"going on after {before} users of an earlier run", file=sys.stderr)
    made = Made()
    if missing:
        steps = (workers or Here()).make(task, missing)
        with closing(steps), tqdm(initial=before, total=total, unit=" users", desc="recommending", file=sys.stderr) as bar:  # type: ignore[type-var]
            try:
                for step in steps:
                    made += step
                    bar.update(step.users)
            except KeyboardInterrupt as interrupt:
                raise OfflineError(f"Interrupted. {_CONTINUATION}") from interrupt
    # A directory of the same path on each node takes parts that nobody finds.
    if lost := len({block.part for block in blocks} - parts.done()):
        raise OfflineError(
            f"{lost} of {len(blocks)} parts were made, and are not in {task.place}: choose an --output that all workers see."
        )
    if not missing and parts.is_over:
        return
    if before:
        made = parts.made({block.part for block in blocks} - {block.part for block in missing}) + made
    if made.is_nothing:
        parts.fail(str(made))
    parts.finish()
    if made.failed:
        print(made, file=sys.stderr)
