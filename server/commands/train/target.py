"""`atspeed train target`: the model whose lists are served."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.failure import fail
from server.commands.options import setting
from server.commands.train.libraries import loading_libraries

if TYPE_CHECKING:
    from drafting.prompt import PromptTemplate


def target(
    data: Annotated[
        Path,
        typer.Option(
            help="Directory with sequential_{train,valid,test}.txt, or with interactions.jsonl or .parquet of user, item, timestamp.",
            exists=True,
            file_okay=False,
        ),
    ],
    catalog: Annotated[Path, setting("catalog", exists=True, dir_okay=False)],
    base: Annotated[str, typer.Option(help="Where to start: 'small', 'paper' or a config.json (from scratch), or a model directory.")],
    out: Annotated[Path, typer.Option(help="Model directory to write; `atspeed serve --target` takes it as it is.")],
    prompt: Annotated[
        Path | None,
        typer.Option(
            help="A prompt.json to train with.", exists=True, dir_okay=False, show_default="the base's; else codes of the last 20 items"
        ),
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the samples.")] = 10.0,
    batch_size: Annotated[int, typer.Option(help="Samples per device and step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    subsequences: Annotated[bool, typer.Option("--subsequences", help="Learn every item of a history, not only the last.")] = False,
    split: Annotated[str, typer.Option(help="Of a stream of interactions: leave-one-out, or global-time (8:1:1).")] = "leave-one-out",
    min_items: Annotated[int, typer.Option(help="Leave out users with fewer interactions, in a stream.")] = 1,
    stride: Annotated[
        int | None,
        typer.Option(
            help="With --subsequences and a bare prompt: new items that each further window of a long history scores.",
            show_default="half a prompt",
        ),
    ] = None,
    left_out: Annotated[float, typer.Option(help="Part of each history that every epoch leaves out, other items each time.")] = 0.0,
    lora: Annotated[bool, typer.Option("--lora", help="Train low-rank additions to the attention instead of every weight.")] = False,
    lora_rank: Annotated[int, typer.Option(help="Of the additions, with --lora.", min=1)] = 8,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    checkpoint_steps: Annotated[int, typer.Option(help="Steps between checkpoints: the most that an interruption loses.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of samples.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, and drop an interrupted run with other settings.")] = False,
) -> None:
    """Train a target: a model that writes the identifier of the item that a user will meet next.

    Example: atspeed train target --data data/beauty --catalog data/beauty/beauty.index.json --base small --subsequences --out models/beauty

    An interrupted run goes on from its last checkpoint when the same command is given again. For several devices, put
    `accelerate launch -m server.cli` in the place of `atspeed`.
    """
    from drafting.alignment.data.interactions import InteractionError
    from drafting.alignment.runs import RunDirectory
    from drafting.alignment.settings import TargetSettings, TrainingError
    from drafting.catalog.catalog import CatalogError
    from drafting.catalog.loading import load_catalog
    from drafting.prompt import PromptError, PromptTemplate

    try:
        RunDirectory(out).refuse_existing(overwrite)
        settings = TargetSettings(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            subsequences=subsequences,
            stride=stride,
            left_out=left_out,
            split=split,
            min_items=min_items,
            lora_rank=lora_rank if lora else 0,
            precision=precision,
            checkpoint_steps=checkpoint_steps,
            seed=seed,
        )
        items = load_catalog(catalog)
        template = _read_prompt(prompt) if prompt else PromptTemplate.load(Path(base)) if (Path(base) / "prompt.json").is_file() else None
    except (TrainingError, CatalogError, PromptError) as error:
        fail(str(error))
    with loading_libraries():
        from drafting.alignment.bases import BaseError
        from drafting.alignment.target import train_target
    try:
        metrics = train_target(data, items, base, out, settings=settings, template=template, overwrite=overwrite)
    except (InteractionError, CatalogError, PromptError, BaseError, TrainingError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("Interrupted: the same command goes on from the last checkpoint.")
    valid = "" if metrics.valid_loss is None else f", validation loss {metrics.valid_loss:.3f}"
    typer.echo(f"Wrote {out}: train loss {metrics.train_loss:.3f}{valid}, {metrics.steps:,} steps in {metrics.seconds:.0f} s.")


def _read_prompt(path: Path) -> "PromptTemplate":
    import msgspec

    from drafting.prompt import PromptTemplate

    try:
        return msgspec.json.decode(path.read_bytes(), type=PromptTemplate)
    except (OSError, msgspec.DecodeError) as error:
        fail(f"{path} is not a prompt template: {error}.")
