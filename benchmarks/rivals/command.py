"""`atspeed-bench rivals`: other projects' decoders, each in its best form, beside this engine."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.endings import sentences
from benchmarks.options import in_a_directory, list_lengths
from server.commands.terminal import print_table
from server.commands.values import some_words, whole_numbers

STATIC = "static"


def rivals(
    only: Annotated[
        str,
        typer.Option(help="Who takes part, separated by commas: atspeed, vllm, transformers, beamsd, ctranslate2, openvino, static."),
    ] = "atspeed,vllm,transformers,beamsd,ctranslate2,openvino,static",
    shape: Annotated[
        str, typer.Option(help="Random models: small (3.7M parameters), qwen3-0.6b-4l (four layers, 151,936 words), qwen3-0.6b or tiny.")
    ] = "small",
    target: Annotated[Path | None, typer.Option(help="Model directory in place of --shape.", exists=True, file_okay=False)] = None,
    draft: Annotated[Path | None, typer.Option(help="Directory of its draft, needed with --target.", exists=True, file_okay=False)] = None,
    catalog: Annotated[Path | None, typer.Option(help="Catalog of the model, needed with --target.", exists=True)] = None,
    k: Annotated[str, typer.Option(help="List lengths, which are beam widths too, separated by commas.")] = "10,50",
    lists: Annotated[int, typer.Option(min=1, help="Lists of each form that count.")] = 15,
    warm_up: Annotated[int, typer.Option(min=1, help="Lists before those.")] = 2,
    items: Annotated[int, typer.Option(min=1, help="Items of a history.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each system.")] = 1,
    sizes: Annotated[str, typer.Option(help="Items of the catalogs that STATIC is asked with, separated by commas.")] = "10000,1000000",
    form: Annotated[
        list[str] | None, typer.Option(help="Only this form, by its name in the table; may be given again.", show_default="all")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Read a rival's repository from here instead of from GitHub.", show_default="none"),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write the rows here; a file of the same run that was interrupted is gone on with.", callback=in_a_directory
        ),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown tables to this file.", callback=in_a_directory)] = None,
) -> None:
    """Time other projects' beam search beside ours in turns, and count lists that are complete and equal (idle machine, ten minutes).

    Each runs in a process and an environment of its own, made in the cache the first time (some minutes and GB); one that can't be
    installed is told of and left out.

    Example: atspeed-bench rivals --only atspeed,ctranslate2 --k 10 --json rivals.json
    """
    names = list(dict.fromkeys(some_words("--only", only)))
    sources = dict(each.partition("=")[::2] for each in source or [])
    lengths, sizes_of_static = list_lengths(k), whole_numbers("--sizes", sizes)
    if len({target is None, draft is None, catalog is None}) > 1:
        raise typer.BadParameter("--target, --draft and --catalog go together.")
    from benchmarks.rivals import report as reports
    from benchmarks.rivals.entrants import RIVALS, entrants
    from benchmarks.rivals.environment import RivalError
    from benchmarks.rivals.models import given_models, random_models
    from benchmarks.rivals.run import Settings, measure
    from benchmarks.rivals.static import measure_masks
    from drafting.cache import cache_directory

    known = [rival.name for rival in RIVALS] + [STATIC]
    if unknown := [name for name in (*names, *sources) if name not in known]:
        raise typer.BadParameter(f"there is no rival {unknown[0]!r}: choose among {', '.join(known)}.")
    if bare := [name for name, path in sources.items() if not path]:
        raise typer.BadParameter(f"--source takes a rival and the path of its repository, such as {bare[0]}=../{bare[0]}.")
    forms = {entrant.label: entrant for entrant in entrants(names)}
    if unknown := [label for label in form or [] if label not in forms]:
        raise typer.BadParameter(f"there is no form {unknown[0]!r}: choose among {'; '.join(forms) or 'those of other rivals'}.")
    chosen = [entrant for label, entrant in forms.items() if form is None or label in form]
    cache = cache_directory() / "rivals"
    with sentences():
        found = None
        if chosen:
            if target is not None and draft is not None and catalog is not None:
                models = given_models(target, draft, catalog, cache)
            else:
                models = random_models(shape, cache)
            settings = Settings(tuple(lengths), lists, warm_up, items, threads, sources)
            found = measure(models, chosen, settings, cache, json_file, lambda sentence: typer.echo(sentence, err=True))
            for length in lengths:
                if rows := [row for row in found.rows if row.k == length]:
                    title = f"K = {length}: {reports.conditions(found)}"
                    print_table(title, reports.COLUMNS, reports.cells(rows), left=("system", "asked"))
        masks, missing = [], ""
        if STATIC in names:
            try:
                masks = measure_masks(sizes_of_static, threads, cache, sources.get(STATIC), json_file)
            except RivalError as error:
                missing = str(error)
                typer.echo(missing, err=True)
    if masks:
        print_table("From logits to the next beam of 50", reports.MASK_COLUMNS, reports.mask_cells(masks))
    if markdown is not None:
        markdown.write_text(reports.markdown(found, masks, missing))
