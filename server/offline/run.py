"""The runs of `atspeed recommend`: read users, make lists, write them."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
from tqdm import tqdm

from drafting.beam.rule import Verification
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.errors import SetupError
from drafting.neighbours.candidates import Blending, CatalogNeighbours
from server.engine.loading import load_recommender
from server.lists.blend import check_known, load_neighbours
from server.lists.lines import item_lines, precision_lines, rule_lines, usage_lines
from server.metrics.logs import configure_logs
from server.offline.output import PlainLines, ResumableFile
from server.offline.questions import Defaults, Question, UserLine, answers, make_question, read_line
from server.offline.stored import StoredHistory
from server.settings import Settings
from verification.recommender import Recommender
from verification.result import BeamResult


class OfflineError(SetupError):
    """A run that can't be made; the message is a sentence."""


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
        limits = {"timeout_ms": settings.history_timeout_ms, "max_events": settings.history_max_events}
        stored = StoredHistory.read(settings.histories, user, catalog, **limits).user
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
    found = _found(recommender, answer) | ({"note": question.note} if question.note else {})
    if as_json:
        named = {"model": settings.model_name, "catalog_version": catalog.version}
        whole = named | precision_lines(recommender.precision, answer.rule) | found
        print(msgspec.json.format(msgspec.json.encode(whole), indent=2).decode())
        return
    if question.note:
        print(question.note, file=sys.stderr)
    if "thought" in found:
        print(found["thought"])
    print(f"{'rank':>4}  {'score':>8}  {'item':<16}  title")
    for item in found["items"]:
        print(f"{item['rank']:>4}  {item['score']:>8.3f}  {item['item_id']:<16}  {item.get('title', '')}".rstrip())


def recommend_file(settings: Settings, defaults: Defaults, input_file: Path, output_file: Path | None) -> None:
    """Write a list, or an error, for every line of a file.

    Raises:
        SetupError: the parts can't be loaded, a file can't be opened, or both files are one.
    """
    configure_logs("warning", "recommend")
    catalog = load_catalog(settings.catalog)
    blending = blending_of(settings, catalog)
    with ExitStack() as stack:
        source = stack.enter_context(_open(input_file, "rb"))
        if output_file is not None and _same_file(input_file, output_file):
            raise OfflineError(f"The output {output_file} is the input itself, which writing would empty: choose another --output.")
        users = _count_users(source)
        recommender = load_recommender(settings.engine_options, catalog)
        stack.callback(recommender.close)
        output = _output(settings, catalog, defaults, input_file, output_file)
        stack.enter_context(output)
        if output.done:
            print(f"going on after {output.done} users of an earlier run", file=sys.stderr)
        defaults = replace(defaults, rule=replace(defaults.rule, seed=output.seed), blending=blending)
        # The questions run ahead of the answers by as many users as fill the engine; their labels wait here.
        labels: deque[dict[str, Any]] = deque()
        lists = answers(recommender, _questions(catalog, source, defaults, labels, output.done))
        try:
            for answer in tqdm(lists, initial=output.done, total=users, unit=" users", desc="recommending", file=sys.stderr):
                found = {"error": answer} if isinstance(answer, str) else _found(recommender, answer)
                output.write(msgspec.json.encode(labels.popleft() | found))
        except KeyboardInterrupt as interrupt:
            raise OfflineError(f"Interrupted. {output.continuation}") from interrupt


def blending_of(settings: Settings, catalog: Catalog) -> Blending | None:
    """How lists are blended; None if they are the model's own.

    Raises:
        NeighbourError: the neighbour model can't be used, or was made for another catalog.
        OfflineError: nothing says how much it weighs, or lists are sampled.
    """
    if (model := load_neighbours(settings)) is None:
        return None
    if settings.blend is None:
        raise OfflineError("Say how much the neighbour model weighs: --blend 0.5, or leave --neighbours out.")
    if settings.verification is not Verification.STRICT:
        raise OfflineError("Only strict lists can be blended: leave --neighbours out, or choose strict verification.")
    neighbours = CatalogNeighbours.of(model, catalog)
    check_known(neighbours, settings)
    return Blending(neighbours, settings.blend) if settings.blend else None


def _output(settings: Settings, catalog: Catalog, defaults: Defaults, input_file: Path, output_file: Path | None) -> PlainLines:
    """The file of lists; a run can only be continued from one file to another."""
    seed = defaults.rule.seed
    if output_file is None:
        return PlainLines(sys.stdout.buffer, seed)
    if not input_file.is_file() or (output_file.exists() and not output_file.is_file()):
        return PlainLines(_open(output_file, "wb"), seed)
    try:
        return ResumableFile(output_file, purpose_of(settings, catalog, defaults, input_file), seed)
    except OSError as error:
        raise OfflineError(f"{output_file} can't be opened: {error.strerror}.") from error


def purpose_of(settings: Settings, catalog: Catalog, defaults: Defaults, input_file: Path) -> str:
    """Everything that the lists of a file follow from: a run goes on only where an earlier one had the same.

    What is None is a value too: a base is that of the target or that of the draft by its place alone.
    """
    status = input_file.stat()
    directories = (settings.target, settings.base, settings.draft, settings.draft_base)
    models = [None if directory is None else directory.resolve() for directory in directories]
    numbers = [settings.engine, settings.dtype, settings.exact, settings.quantization, settings.normalise]
    # Another seed will do where it was drawn by chance.
    asked = replace(defaults, rule=replace(defaults.rule, seed=0)) if defaults.seed_is_drawn else defaults
    blend = None if settings.neighbours is None else [settings.blend, settings.neighbours.resolve(), settings.neighbours.stat().st_mtime_ns]
    purpose = [input_file.resolve(), status.st_size, status.st_mtime_ns, models, numbers, settings.plan, catalog.version, asked, blend]
    return msgspec.json.encode(purpose, enc_hook=str).decode()


def _open(path: Path, mode: Literal["rb", "wb"]) -> BinaryIO:
    try:
        return path.open(mode)
    except OSError as error:
        raise OfflineError(f"{path} can't be opened: {error.strerror}.") from error


def _same_file(one: Path, other: Path) -> bool:
    """True if both paths are the same regular file, links included; a terminal or a pipe may be both input and output."""
    return one.is_file() and other.is_file() and one.samefile(other)


def _count_users(source: BinaryIO) -> int | None:
    """The users of a file, for the progress bar; None for a pipe, whose lines can only be read once."""
    if not source.seekable():
        return None
    users = sum(1 for line in source if line.strip())
    source.seek(0)
    return users


def _questions(
    catalog: Catalog, source: Iterable[bytes], defaults: Defaults, labels: deque[dict[str, Any]], done: int
) -> Iterator[Question | str]:
    """The question of each line but the first `done` ones; the label of its answer goes to `labels`."""
    for number, text in enumerate(source, start=1):
        if not text.strip():
            continue
        if done:
            done -= 1
            continue
        line = read_line(text)
        question = line if isinstance(line, str) else make_question(catalog, line, defaults, number - 1)
        label: dict[str, Any] = {"line": number} if isinstance(question, str) else {}
        if isinstance(line, UserLine) and line.user_id is not None:
            label["user_id"] = line.user_id
        if isinstance(question, Question) and question.note:
            label["note"] = question.note
        labels.append(label)
        yield question


def _found(recommender: Recommender, answer: BeamResult) -> dict[str, Any]:
    """The fields of a list, named as in `schemas.RecommendationAnswer`."""
    thought = {} if answer.thought is None else {"thought": recommender.text(answer.thought)}
    items = item_lines(recommender.catalog, answer.items, blend=answer.blend)
    return {**rule_lines(answer.rule), "items": items, **thought, "usage": usage_lines(answer.usage)}
