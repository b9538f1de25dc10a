"""`atspeed catalog build`: identifiers for items that have none, from embeddings or from a directory of interactions."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drafting.alignment.data.fit import FIT_TRAIN, FITS
from drafting.alignment.data.record import AUTO, ITEMS_FILE, split_kind
from drafting.alignment.settings import LARGEST_SEED
from server.commands.catalog_compare import best_of
from server.commands.terminal import check_out, fail
from server.commands.train.running import loading_libraries

if TYPE_CHECKING:
    from drafting.alignment.data.interactions import Split
    from drafting.alignment.data.splits import SplitRule
    from drafting.array_types import FloatArray
    from drafting.catalog.catalog import Catalog
    from drafting.catalog.identifier_form import IdentifierForm
    from drafting.catalog.item_list import ItemList
    from drafting.embeddings.sources import Sources

# Lists of items that are catalogs already.
_CATALOGS = (".json", ".parquet", ".catalog")


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
            help='The items, in order: a .jsonl of {"item_id", "title"?, …}, whose other fields become attributes, a text file with one id '
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
    from drafting.catalog.identifier_form import DIGIT, ITEM_TOKEN, UNIQUE, IdentifierForm, forms_to_try
    from drafting.embeddings.learnt import learnt_file

    endings = [name for name, asked in ((UNIQUE, unique), (DIGIT, digit), (ITEM_TOKEN, item_token)) if asked]
    if len(endings) > 1:
        fail("Give one of --unique, --digit and --item-token: each makes identifiers that no two items share.")
    if choose and (data is None or endings or balanced or levels is not None):
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
    if items is None:
        if data is None or not (data / ITEMS_FILE).is_file():
            fail(f"List the items with --items FILE{'' if data is None else f', or as {ITEMS_FILE} in {data}'}.")
        items = data / ITEMS_FILE
    form = IdentifierForm(levels or 3, codes, balanced, ending=endings[0] if endings else None)
    forms = forms_to_try(codes) if choose else (form,)
    codebooks_file = out.with_suffix(".codebooks.safetensors")
    record_file = learnt_file(out)
    written = [out, *([codebooks_file] if any(each.has_codebooks for each in forms) else []), *([] if data is None else [record_file])]
    check_out(*written, overwrite=overwrite)
    from drafting.catalog.forms import is_named_as_lines

    if not is_named_as_lines(out):
        fail(f"The catalog is written as JSONL, and a file of the name {out.name} is read as something else: let it end in .jsonl.")
    from tqdm import tqdm

    from drafting.alignment.data.met_labels import check_labels_are_new
    from drafting.alignment.data.splits import SplitRule
    from drafting.cache import whole_file
    from drafting.catalog.builder import catalog_of
    from drafting.embeddings.learnt import Learnt, write_learnt
    from drafting.embeddings.sources import Sources, split_of
    from drafting.errors import SetupError
    from drafting.neighbours.source_check import source_of

    try:
        listed = _items(items)
        if data is not None:
            rule = SplitRule(split_kind(split, data), min_items, label_kind)
            source = source_of(data, rule)
            parts = split_of(data, listed, rule)
            if choose and not keep_seen:
                check_labels_are_new(parts)
            weight = (0.3 if listed.attributes else 0.0) if text_weight is None else text_weight
            matrix = _embedded(parts, listed, Sources(dims, weight, text_model, seed, fit))
        elif embeddings is not None:
            matrix = _matrix(embeddings, items, len(listed.names))
        made = {}
        with tqdm(total=sum(each.levels for each in forms), desc="clustering", unit="level") as bar:
            for each in forms:
                quantised = each.quantise(matrix, seed, lambda _: bar.update())
                named = list(zip(listed.names, quantised.identifiers(), strict=True))
                made[each] = quantised, catalog_of(named, attributes=listed.attributes)
        if choose and data is not None:
            form = _chosen({each: catalog for each, (_, catalog) in made.items()}, data, rule, keep_seen)
    except SetupError as error:
        fail(str(error))
    quantised, catalog = made[form]
    try:
        # All are written before one of them takes the place of what was there.
        with ExitStack() as files:
            if form.has_codebooks:
                quantised.codebooks.save(files.enter_context(whole_file(codebooks_file)))
            # Texts alone say nothing of who met what.
            if data is not None and weight < 1:
                write_learnt(files.enter_context(whole_file(record_file)), Learnt(catalog.version, fit, source))
            catalog.save(files.enter_context(whole_file(out)))
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}.")
    typer.echo(f"Wrote {out} ({len(catalog):,} items, version {catalog.version}){f' and {codebooks_file}' * form.has_codebooks}.")
    typer.echo(f"{quantised.shared_identifiers:,} items share an identifier with another.")


def _chosen(catalogs: "dict[IdentifierForm, Catalog]", data: Path, rule: "SplitRule", keep_seen: bool) -> "IdentifierForm":
    """The form that a tiny target learns best; the table of all is printed."""
    with loading_libraries(None):
        from verification.evaluation.proxy import ProxySettings
    best = best_of({str(form): catalog for form, catalog in catalogs.items()}, data, ProxySettings(rule=rule, keep_seen=keep_seen))
    return next(form for form in catalogs if str(form) == best)


def _items(path: Path) -> "ItemList":
    """The items of a list, or of a catalog."""
    from drafting.catalog.item_list import ItemList
    from drafting.catalog.loading import load_catalog

    if path.suffix not in _CATALOGS:
        return ItemList.read(path)
    catalog = load_catalog(path)
    known = [catalog.known_attributes(index) for index in range(len(catalog))]
    return ItemList(
        list(catalog.item_ids), {name: [each.get(name) for each in known] for name in sorted({n for each in known for n in each})}
    )


def _matrix(embeddings: Path, items: Path, rows: int) -> "FloatArray":
    """The embeddings of a file, one of each of the items."""
    from drafting.catalog.catalog import CatalogError
    from drafting.catalog.code_matrix import load_array
    from drafting.errors import check_file

    check_file(embeddings, "The matrix", CatalogError)
    matrix: FloatArray = load_array(embeddings, "The matrix")
    if matrix.ndim != 2 or len(matrix) != rows:
        fail(f"{embeddings} has the shape {matrix.shape}, but {items} lists {rows} items: there must be one row per item.")
    return matrix


def _embedded(parts: "Split", items: "ItemList", sources: "Sources") -> "FloatArray":
    """The embeddings of a data directory's items."""
    from tqdm import tqdm

    from drafting.embeddings.sources import embed_items
    from drafting.neighbours.build import ease_refusal

    if sources.text_weight < 1 and (refusal := ease_refusal(len(items.names))):
        typer.echo(f"{refusal}: what users met is embedded by plain co-occurrence, from which targets learn less.", err=True)
    with tqdm(desc="reading texts", unit="text", disable=sources.encoder is None) as bar:
        matrix = embed_items(parts, items, sources, bar.update)
    if unknown := int((~matrix.any(axis=1)).sum()):
        typer.echo(
            f"{unknown:,} items have neither an interaction that counts nor a text: their place among the others says nothing.", err=True
        )
    return matrix
