"""The runs of `atspeed recommend`: read users, make lists, write them."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from tqdm import tqdm

from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from server.engine.loading import load_recommender
from server.lists.lines import precision_lines
from server.metrics.logs import configure_logs
from server.offline.cluster import Cluster
from server.offline.in_parts import PartTask, make_parts
from server.offline.lists import ListMaker, OfflineError, blending_of, found_lines
from server.offline.output import PlainLines, ResumableFile, names_written
from server.offline.parts import Form, names_of_parts
from server.offline.places import is_url
from server.offline.prints import check_here, prints_of
from server.offline.purpose import purpose_of
from server.offline.questions import Defaults, UserLine, answers, make_question
from server.offline.stored import StoredHistory
from server.offline.tables import check_tables
from server.offline.user_files import TABLES, UserFile, UserPlace
from server.offline.users import Row, plan_blocks, read_rows
from server.settings import Settings


@dataclass(frozen=True)
class Output:
    """Where the lists of a run go, and how they are made.

    Attributes:
        place: a file, or a folder of parts, which may be in an object store; None for standard output.
        form: of the parts of a folder; None for that of the users. A file's form follows from its name.
        part_users: users of a part at most.
        cluster: makes the parts; None for this process.
    """

    place: str | None = None
    form: Form | None = None
    part_users: int = 1000
    cluster: Cluster | None = None

    @property
    def is_folder(self) -> bool:
        place = self.place
        return place is not None and (self.cluster is not None or is_url(place) or place.endswith("/") or Path(place).is_dir())


def recommend_one(settings: Settings, defaults: Defaults, history: Sequence[str], user: str | None, as_json: bool) -> None:
    """Print the list for one history, or for one stored user.

    Raises:
        SetupError: the parts can't be loaded, or the list can't be made.
    """
    configure_logs("warning", "recommend")
    catalog = load_catalog(settings.catalog)
    defaults = replace(defaults, blending=blending_of(settings, catalog))
    stored = None
    if user is not None:
        stored = StoredHistory.read(settings.histories, user, catalog, max_events=settings.history_max_events).user
    question = make_question(catalog, UserLine(list(history)), defaults, stored=stored)
    if isinstance(question, str):
        raise OfflineError(question)
    recommender = load_recommender(settings.engine_options, catalog)
    try:
        (answer,) = answers(recommender, [question])
    finally:
        recommender.close()
    if isinstance(answer, str):
        raise OfflineError(answer)
    found = found_lines(recommender, answer) | ({"note": question.note} if question.note else {})
    if as_json:
        named = {"model": settings.model_name, "catalog_version": catalog.version}
        whole = named | precision_lines(recommender.precision, answer.rule, answer.tolerance) | found
        print(msgspec.json.format(msgspec.json.encode(whole), indent=2).decode())
        return
    if question.note:
        print(question.note, file=sys.stderr)
    if "thought" in found:
        print(found["thought"])
    print(f"{'rank':>4}  {'score':>8}  {'item':<16}  title")
    for item in found["items"]:
        print(f"{item['rank']:>4}  {item['score']:>8.3f}  {item['item_id']:<16}  {item.get('title', '')}".rstrip())


def recommend_users(settings: Settings, defaults: Defaults, users: str, output: Output) -> None:
    """Write a list, or an error, for every user of one or many files.

    Args:
        users: a file, a pipe, a folder, or a name with wildcards, which may be in an object store.

    Raises:
        SetupError: the parts can't be loaded, a file can't be read or written, both files are one, or no user got a list.
    """
    configure_logs("warning", "recommend")
    try:
        is_stream = not is_url(users) and (path := Path(users)).exists() and not path.is_file() and not path.is_dir()
        is_folder = output.is_folder
        is_file = output.place is not None and not is_url(output.place) and Path(output.place).is_file()
    except OSError as error:
        # As below a directory that this user may not enter.
        raise OfflineError(f"{error.filename} can't be looked for: {error.strerror}.") from error
    if output.cluster is not None and output.place is None:
        raise OfflineError("Lists that Ray makes go to a folder that all its workers see: say which with --output.")
    if is_folder and is_stream:
        raise OfflineError(f"A folder of lists is made from files, and {users} can be read only once: choose a file as --output.")
    if is_folder and is_file:
        raise OfflineError(f"The lists are to be parts in a folder, and {output.place} is a file: choose another --output.")
    if output.form is not None and not is_folder:
        raise OfflineError("--output-format is for a folder of parts: the form of a file follows from its name (.parquet, else JSONL).")
    catalog = load_catalog(settings.catalog)
    if is_folder:
        _recommend_in_parts(settings, defaults, catalog, users, output)
    else:
        _recommend_to_file(settings, defaults, catalog, users, output, is_stream)


def _recommend_in_parts(settings: Settings, defaults: Defaults, catalog: Catalog, users: str, output: Output) -> None:
    # Workers have another working directory.
    place = str(output.place) if is_url(str(output.place)) else str(Path(str(output.place)).absolute())
    settings = settings.model_copy(update={name: value.absolute() for name, value in settings if isinstance(value, Path)})
    blending_of(settings, catalog)
    if output.cluster is not None:
        check_here(settings)
    source = UserPlace.of(users)
    files = source.files()
    form: Form = output.form or ("parquet" if all(file.is_table for file in files) else "jsonl")
    _check_apart(source, place, names_of_parts(form))
    if form == "parquet":
        check_tables()
    blocks = list(plan_blocks(files, output.part_users))
    purpose = f"{purpose_of(settings, catalog, defaults, files)} {form} {output.part_users}"
    task = PartTask(settings, defaults, tuple(files), place, form, catalog.version, prints_of(settings))
    make_parts(task, blocks, purpose, output.cluster)


def _recommend_to_file(settings: Settings, defaults: Defaults, catalog: Catalog, users: str, output: Output, is_stream: bool) -> None:
    place = None if output.place is None else Path(output.place)
    if place is not None:
        _check_output(place)
    source = None if is_stream else UserPlace.of(users)
    files = [] if source is None else source.files()
    with ExitStack() as stack:
        rows, total = _read_all(stack, files, users, output.part_users)
        if place is not None and any(_same_file(Path(file.folder, file.name), place) for file in files):
            raise OfflineError(f"The output {place} is the input itself, which writing would empty: choose another --output.")
        if place is not None and source is not None:
            for path in (place, place.resolve()):
                _check_apart(source, str(path.parent), names_written(path.name))
        maker = stack.enter_context(closing(ListMaker(settings, defaults, catalog)))
        writer = stack.enter_context(_writer(settings, catalog, defaults, files, place))
        if writer.done:
            print(f"going on after {writer.done} users of an earlier run", file=sys.stderr)
        maker.defaults = replace(maker.defaults, rule=replace(defaults.rule, seed=writer.seed))
        lists = maker.lines(islice(rows, writer.done, None))
        try:
            for line in tqdm(lists, initial=writer.done, total=total, unit=" users", desc="recommending", file=sys.stderr):
                writer.write(line)
        except KeyboardInterrupt as interrupt:
            raise OfflineError(f"Interrupted. {writer.continuation}") from interrupt
    made = writer.made + maker.made
    if made.is_nothing:
        raise OfflineError(f"{output.place or 'The output'} has only errors: {made}")
    if made.failed:
        print(made, file=sys.stderr)


def _check_output(place: Path) -> None:
    """Refuse what could not be written in the end, before the users are counted and the model is loaded, which may take minutes."""
    if not place.parent.is_dir():
        raise OfflineError(f"There is no directory {place.parent} to write {place.name} to.")
    if place.name.endswith(TABLES):
        check_tables()


def _check_apart(source: UserPlace, place: str, names: Sequence[str]) -> None:
    """Refuse lists that the same command would take for users when it is given again."""
    if source.takes_any(place, names):
        raise OfflineError(f"Lists in {place} would be taken for users, as {source.given} names files there, too: choose another --output.")


def _read_all(stack: ExitStack, files: Sequence[UserFile], users: str, most: int) -> tuple[Iterator[Row], int | None]:
    """All users, and how many they are for the progress bar; None for a pipe, whose lines can only be read once."""
    if not files:
        source: Iterable[bytes] = stack.enter_context(_open(Path(users), "rb"))
        return (Row(number, number + 1, text) for number, text in enumerate(source) if text.strip()), None
    blocks = list(plan_blocks(files, most))
    return chain.from_iterable(read_rows(files, block) for block in blocks), sum(block.users for block in blocks)


def _writer(settings: Settings, catalog: Catalog, defaults: Defaults, files: Sequence[UserFile], place: Path | None) -> PlainLines:
    """The file of lists; a run can only be continued from files to a file, as nobody knows whether a pipe brings the same users again."""
    seed = defaults.rule.seed
    if place is None:
        return PlainLines(sys.stdout.buffer, seed)
    is_table = place.name.endswith(TABLES)
    if not is_table and (not files or (place.exists() and not place.is_file())):
        return PlainLines(_open(place, "wb"), seed)
    try:
        return ResumableFile(place, purpose_of(settings, catalog, defaults, files) if files else None, seed, is_table)
    except OSError as error:
        raise OfflineError(f"{place} can't be opened: {error.strerror}.") from error


def _open(path: Path, mode: Literal["rb", "wb"]) -> BinaryIO:
    try:
        return path.open(mode)
    except OSError as error:
        raise OfflineError(f"{path} can't be opened: {error.strerror}.") from error


def _same_file(one: Path, other: Path) -> bool:
    """True if both paths are the same regular file, links included; a terminal or a pipe may be both input and output."""
    return one.is_file() and other.is_file() and one.samefile(other)
