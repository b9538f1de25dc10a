"""`atspeed catalog build`: identifiers for items that have none, from embeddings or from a directory of interactions."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drafting.alignment.data.fit import FIT_TRAIN, FITS
from drafting.alignment.data.record import AUTO, ITEMS_FILE, split_kind
from drafting.alignment.settings import LARGEST_SEED
from server.commands.catalog_compare import best_of
from server.commands.catalog_inputs import embedded, items_file, read_items, read_matrix
from server.commands.terminal import check_out, fail, failing_on
from server.commands.train.running import loading_libraries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drafting.alignment.data.splits import SplitRule
    from drafting.array_types import FloatArray
    from drafting.catalog.catalog import Catalog
    from drafting.catalog.codebooks import Codebooks, Quantisation
    from drafting.catalog.identifier_form import IdentifierForm
    from drafting.catalog.item_list import ItemList
    from drafting.embeddings.learnt import Learnt


def build(
    out: Annotated[
        Path,
        typer.Option(
            help="The catalog to write, JSONL; its codebooks go to OUT with the ending .codebooks.safetensors, and what it has learnt from "
            "DATA to OUT with the ending .learnt.json."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="A directory of interactions, as `train` takes it: items are embedded by who met them and by their texts.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Embeddings of your own instead: a .npy matrix [items, dims].", exists=True, dir_okay=False)
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(
            help='The items, in order: JSONL of {"item_id", "title"?, …}, whose other fields become attributes, a text file with one id '
            "a line, or a catalog (.json, .parquet, .catalog), whose identifiers are left.",
            exists=True,
            dir_okay=False,
            show_default=f"DATA/{ITEMS_FILE}",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="How DATA is split, if it is one stream; as for `train target`.")] = AUTO,
    min_items: Annotated[int, typer.Option(help="Leave out shorter users of DATA; as for `train target`.", min=1)] = 1,
    label_kind: Annotated[
        str | None, typer.Option(help="Kind of interactions of DATA to predict; as for `train target`.", show_default="all")
    ] = None,
    fit: Annotated[
        str,
        typer.Option(
            help="Parts of DATA whose interactions count, as for `train target`: train; train+valid, for identifiers of targets that are "
            "evaluated on the test part; all, of such as are served, so that the newest items have places of their own.",
            metavar="|".join(FITS),
        ),
    ] = FIT_TRAIN,
    text_weight: Annotated[
        float | None,
        typer.Option(
            help="Share of titles and attributes in what makes items alike; the rest is who met them.",
            min=0,
            max=1,
            show_default="0.3 where items have texts, else 0",
        ),
    ] = None,
    text_model: Annotated[
        Path | None,
        typer.Option(
            help="Directory of a model that embeds texts, such as one of sentence-transformers.",
            exists=True,
            file_okay=False,
            show_default="TF-IDF",
        ),
    ] = None,
    dims: Annotated[int, typer.Option(help="Dimensions of what interactions, and words, are reduced to.", min=1)] = 64,
    levels: Annotated[int | None, typer.Option(help="Codes per identifier.", min=1, max=8, show_default="3")] = None,
    codes: Annotated[int, typer.Option(help="Codes per level.", min=1)] = 256,
    seed: Annotated[
        int, typer.Option(help="Of embeddings and clustering; the same seed gives the same catalog.", min=0, max=LARGEST_SEED)
    ] = 0,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Give each code of a level between half the mean number of items and 1.3 times the mean.")
    ] = False,
    unique: Annotated[bool, typer.Option("--unique", help="Give every item an identifier of its own: the nearest free last code.")] = False,
    digit: Annotated[
        bool,
        typer.Option(
            "--digit", help="Tell items that share an identifier apart by one more token, as TIGER does; without codebooks for new items."
        ),
    ] = False,
    item_token: Annotated[
        bool,
        typer.Option(
            "--item-token",
            help="End each identifier with a token that only its item has, so that a model learns an embedding of each item; without "
            "codebooks for new items. With --levels 1: a cluster, then the item.",
        ),
    ] = False,
    choose: Annotated[
        bool,
        typer.Option(
            "--choose",
            help="Instead of saying the form of identifiers, make several and keep those that a tiny target learns best from DATA, as "
            "`atspeed catalog compare` finds out; minutes for each, on as many threads as OMP_NUM_THREADS or the quota says.",
        ),
    ] = False,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="With --choose: keep what users have met in the lists that are judged, as for `evaluate`.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Make identifiers by residual k-means, so that similar items share the front of theirs.

    Examples:

    atspeed catalog build --data data/mine --out data/mine/catalog.jsonl --levels 1 --balanced --item-token --fit all

    atspeed catalog build --data data/mine --out data/mine/catalog.jsonl --choose

    atspeed catalog build --embeddings items.npy --items items.jsonl --out catalog.jsonl --levels 4 --codes 256
    """
    if (data is None) == (embeddings is None):
        fail("Say what makes items alike: give --data, a directory of interactions, or --embeddings, a matrix of your own.")
    from drafting.catalog.identifier_form import IdentifierForm, forms_to_try
    from drafting.embeddings.learnt import learnt_file

    ending = _ending(unique=unique, digit=digit, item_token=item_token)
    if choose and (data is None or ending is not None or balanced or levels is not None):
        fail("--choose finds the form of identifiers from --data: leave out --levels, --balanced, --unique, --digit and --item-token.")
    if keep_seen and not choose:
        fail("--keep-seen says how --choose judges identifiers: pass both, or neither.")
    if data is None and (text_weight is not None or text_model is not None or label_kind is not None or min_items > 1 or fit != FIT_TRAIN):
        fail("--fit, --text-weight, --text-model, --label-kind and --min-items are for --data: a matrix of --embeddings is taken as it is.")
    if fit not in FITS:
        fail(f"--fit takes {', '.join(FITS)}, got {fit!r}.")
    if choose and fit != FIT_TRAIN:
        fail(
            "--choose judges identifiers by the validation part, which they must not know: choose without --fit, then give it and the form."
        )
    items = items or items_file(data)
    form = IdentifierForm(levels or 3, codes, balanced, ending)
    forms = forms_to_try(codes) if choose else (form,)
    check_out(out, _codebooks_file(out), learnt_file(out), overwrite=overwrite)
    from drafting.catalog.forms import is_named_as_lines

    if not is_named_as_lines(out):
        fail(f"The catalog is written as JSONL, and a file of the name {out.name} is read as something else: let it end in .jsonl.")
    from drafting.alignment.data.met_labels import check_labels_are_new
    from drafting.alignment.data.splits import SplitRule
    from drafting.embeddings.learnt import Learnt
    from drafting.embeddings.sources import Sources, split_of
    from drafting.errors import SetupError
    from drafting.neighbours.source_check import source_of

    with failing_on(SetupError):
        listed = read_items(items)
        if data is not None:
            rule = SplitRule(split_kind(split, data), min_items, label_kind)
            source = source_of(data, rule)
            parts = split_of(data, listed, rule)
            if choose and not keep_seen:
                check_labels_are_new(parts)
            weight = (0.3 if listed.attributes else 0.0) if text_weight is None else text_weight
            matrix = embedded(parts, listed, Sources(dims, weight, text_model, seed, fit))
        elif embeddings is not None:
            matrix = read_matrix(embeddings, items, len(listed.names))
        made = _clustered(forms, matrix, listed, seed)
        if choose and data is not None:
            form = _chosen({each: catalog for each, (_, catalog) in made.items()}, data, rule, keep_seen)
    quantised, catalog = made[form]
    # Texts alone say nothing of who met what.
    learnt = Learnt(catalog.version, fit, source) if data is not None and weight < 1 else None
    _write(out, catalog, quantised.codebooks if form.has_codebooks else None, learnt)
    beside = f" and {_codebooks_file(out)}" if form.has_codebooks else ""
    typer.echo(f"Wrote {out} ({len(catalog):,} items, version {catalog.version}){beside}.")
    typer.echo(f"{quantised.shared_identifiers:,} items share an identifier with another.")


def _ending(*, unique: bool, digit: bool, item_token: bool) -> str | None:
    """The ending of identifiers by its flag; None without one."""
    from drafting.catalog.identifier_form import DIGIT, ITEM_TOKEN, UNIQUE

    endings = [name for name, asked in ((UNIQUE, unique), (DIGIT, digit), (ITEM_TOKEN, item_token)) if asked]
    if len(endings) > 1:
        fail("Give one of --unique, --digit and --item-token: each makes identifiers that no two items share.")
    return endings[0] if endings else None


def _codebooks_file(out: Path) -> Path:
    return out.with_suffix(".codebooks.safetensors")


def _clustered(
    forms: "Sequence[IdentifierForm]", matrix: "FloatArray", items: "ItemList", seed: int
) -> "dict[IdentifierForm, tuple[Quantisation, Catalog]]":
    """Identifiers of each form, and the catalog of the items under them."""
    from tqdm import tqdm

    from drafting.catalog.builder import catalog_of

    made = {}
    with tqdm(total=sum(form.levels for form in forms), desc="clustering", unit="level") as bar:
        for form in forms:
            quantised = form.quantise(matrix, seed, lambda _: bar.update())
            named = list(zip(items.names, quantised.identifiers(), strict=True))
            made[form] = quantised, catalog_of(named, attributes=items.attributes)
    return made


def _write(out: Path, catalog: "Catalog", codebooks: "Codebooks | None", learnt: "Learnt | None") -> None:
    """Write a catalog and what lies beside it, all of it before one file takes the place of what was there. What it does not have goes with
    the catalog before it: codebooks, or a record of what that one has learnt.
    """
    from drafting.cache import whole_file
    from drafting.embeddings.learnt import learnt_file, write_learnt

    try:
        with ExitStack() as files:
            if codebooks is not None:
                codebooks.save(files.enter_context(whole_file(_codebooks_file(out))))
            if learnt is not None:
                write_learnt(files.enter_context(whole_file(learnt_file(out))), learnt)
            catalog.save(files.enter_context(whole_file(out)))
        for beside, own in ((_codebooks_file(out), codebooks), (learnt_file(out), learnt)):
            if own is None:
                beside.unlink(missing_ok=True)
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}.")


def _chosen(catalogs: "dict[IdentifierForm, Catalog]", data: Path, rule: "SplitRule", keep_seen: bool) -> "IdentifierForm":
    """The form that a tiny target learns best; the table of all is printed."""
    with loading_libraries(None):
        from verification.evaluation.proxy import ProxySettings
    best = best_of({str(form): catalog for form, catalog in catalogs.items()}, data, ProxySettings(rule=rule, keep_seen=keep_seen))
    return next(form for form in catalogs if str(form) == best)
