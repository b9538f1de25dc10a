"""`atspeed train draft`: the small model that guesses what the target will keep."""

from pathlib import Path
from typing import Annotated

import typer

from drafting.alignment.settings import DraftSettings
from server.commands.options import setting, takes_struct
from server.commands.terminal import fail
from server.commands.train.running import Threads, failing, loading_libraries, refuse_unserved, took


@takes_struct(DraftSettings)
def draft(
    settings: DraftSettings,
    teacher: Annotated[Path, typer.Option(help="Teacher data, made by `atspeed train teacher`.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Model directory to write; `atspeed serve --draft` takes it as it is.")],
    base: Annotated[
        str, typer.Option(help="Where to start: 'draft', 'draft-deep' (two layers) or a config.json (from scratch), or a model directory.")
    ] = "draft",
    target: Annotated[
        Path | None, typer.Option(help="Check that the teacher data is of this target.", exists=True, file_okay=False)
    ] = None,
    target_base: Annotated[Path | None, setting("base", exists=True, file_okay=False)] = None,
    catalog: Annotated[Path | None, typer.Option(help="Check that it is of this catalog.", exists=True, dir_okay=False)] = None,
    threads: Threads = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, and drop an interrupted run with other settings.")] = False,
) -> None:
    """Train a draft: loss = (1 - alpha) * cross-entropy on what users did + alpha * the objective.

    Example: atspeed train draft --teacher teachers/beauty --objective atspeed-s --out models/beauty-draft

    An interrupted run goes on from its last checkpoint when the same command is given again. For several devices, put
    `accelerate launch -m server.cli` in the place of `atspeed`.
    """
    from drafting.alignment.data.hashes import model_hash
    from drafting.alignment.runs import RunDirectory
    from drafting.catalog.loading import load_catalog

    if target_base is not None and target is None:
        fail("--target-base is the base of --target: name that, too, or leave --target-base out.")
    with failing():
        RunDirectory(out).refuse_existing(overwrite)
        version = None if catalog is None else load_catalog(catalog).version
        with loading_libraries(threads):
            from drafting.alignment.draft import train_draft
            from drafting.alignment.teacher.data import check_provenance, read_manifest
        refuse_unserved(base)
        manifest = read_manifest(teacher)
        taught = None if target is None else model_hash(target, target_base, "--target-base")
        check_provenance(manifest, teacher, taught, version)
        metrics = train_draft(teacher, base, out, settings=settings, overwrite=overwrite)
    valid = "" if metrics.valid_loss is None else f", validation cross-entropy {metrics.valid_loss:.3f}"
    speed = f"{took(metrics)}, {metrics.tokens_per_second:,.0f} tokens/s"
    typer.echo(f"Wrote {out}: {settings.objective} loss {metrics.train_loss:.3f}{valid}, {speed}.")
