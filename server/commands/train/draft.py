"""`atspeed train draft`: the small model that guesses what the target will keep."""

from pathlib import Path
from typing import Annotated

import typer

from server.commands.failure import fail
from server.commands.train.libraries import loading_libraries


def draft(
    teacher: Annotated[Path, typer.Option(help="Teacher data, made by `atspeed train teacher`.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Model directory to write; `atspeed serve --draft` takes it as it is.")],
    objective: Annotated[str, typer.Option(help="sft, wordkd, tvdkd, seqkd, atspeed-s, atspeed-r or atspeed-c.")] = "atspeed-s",
    base: Annotated[str, typer.Option(help="Where to start: 'draft' or a config.json (from scratch), or a model directory.")] = "draft",
    target: Annotated[
        Path | None, typer.Option(help="Check that the teacher data is of this target.", exists=True, file_okay=False)
    ] = None,
    catalog: Annotated[Path | None, typer.Option(help="Check that it is of this catalog.", exists=True, dir_okay=False)] = None,
    alpha: Annotated[float, typer.Option(help="Weight of the objective; cross-entropy has the rest.")] = 0.7,
    labels: Annotated[
        str | None,
        typer.Option(
            help="What cross-entropy is taken on: truth (what users did) or lists (the target's, for objectives on them).",
            show_default="lists for atspeed-s and -c, else truth",
        ),
    ] = None,
    true_items: Annotated[
        bool | None,
        typer.Option(
            "--true-items/--no-true-items",
            help="Whether atspeed-s and -r compare distributions at the true items as well as on the target's lists.",
            show_default="atspeed-r does",
        ),
    ] = None,
    last_level: Annotated[
        bool, typer.Option("--last-level", help="atspeed-s and -r also learn an identifier's last token, which is never drafted.")
    ] = False,
    temperature: Annotated[float, typer.Option(help="Of the draft's softmax, for atspeed-s and atspeed-r.")] = 1.0,
    top: Annotated[int, typer.Option(help="The draft's tokens per position that atspeed-s compares.")] = 20,
    density: Annotated[float, typer.Option(help="Weight of atspeed-s's density regularisation.")] = 1.0,
    reach: Annotated[int, typer.Option(help="For atspeed-c, the width of the draft's beam.")] = 40,
    margin: Annotated[float, typer.Option(help="For atspeed-c, by how much a beam should clear the bar.")] = 1.0,
    epochs: Annotated[float, typer.Option(help="Passes over the samples.")] = 10.0,
    batch_size: Annotated[int, typer.Option(help="Samples per device and step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    checkpoint_steps: Annotated[int, typer.Option(help="Steps between checkpoints: the most that an interruption loses.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of samples.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, and drop an interrupted run with other settings.")] = False,
) -> None:
    """Train a draft: loss = (1 - alpha) * cross-entropy on what users did + alpha * the objective.

    Example: atspeed train draft --teacher teachers/beauty --objective atspeed-s --out models/beauty-draft

    An interrupted run goes on from its last checkpoint when the same command is given again. For several devices, put
    `accelerate launch -m server.cli` in the place of `atspeed`.
    """
    from drafting.alignment.data.hashes import model_hash
    from drafting.alignment.runs import RunDirectory
    from drafting.alignment.settings import DraftSettings, TrainingError
    from drafting.catalog.catalog import CatalogError
    from drafting.catalog.loading import load_catalog
    from drafting.errors import SetupError

    try:
        RunDirectory(out).refuse_existing(overwrite)
        settings = DraftSettings(
            objective=objective,
            alpha=alpha,
            labels=labels,
            last_level=last_level,
            true_items=true_items,
            temperature=temperature,
            top=top,
            density=density,
            reach=reach,
            margin=margin,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            precision=precision,
            checkpoint_steps=checkpoint_steps,
            seed=seed,
        )
        version = None if catalog is None else load_catalog(catalog).version
    except (TrainingError, CatalogError) as error:
        fail(str(error))
    with loading_libraries():
        from drafting.alignment.bases import BaseError
        from drafting.alignment.draft import train_draft
        from drafting.alignment.teacher.data import check_provenance, read_manifest
    try:
        check_provenance(read_manifest(teacher), teacher, None if target is None else model_hash(target), version)
        metrics = train_draft(teacher, base, out, settings=settings, overwrite=overwrite)
    except (BaseError, TrainingError, SetupError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("Interrupted: the same command goes on from the last checkpoint.")
    valid = "" if metrics.valid_loss is None else f", validation cross-entropy {metrics.valid_loss:.3f}"
    speed = f"{metrics.steps:,} steps in {metrics.seconds:.0f} s, {metrics.tokens_per_second:,.0f} tokens/s"
    typer.echo(f"Wrote {out}: {objective} loss {metrics.train_loss:.3f}{valid}, {speed}.")
