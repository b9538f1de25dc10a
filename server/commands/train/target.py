"""`atspeed train target`: the model whose lists are served."""

from pathlib import Path
from typing import Annotated, Any

import typer

from drafting.alignment.data.fit import has_learnt
from drafting.alignment.data.record import split_kind
from drafting.alignment.recipes import with_recipe
from drafting.alignment.settings import TargetSettings
from server.commands.learnt import warn_of_learnt_identifiers
from server.commands.options import setting, takes_given
from server.commands.terminal import fail
from server.commands.train.running import Threads, failing, loading_libraries, refuse_unserved, took


@takes_given(TargetSettings, without=["lora_rank", "add_tokens"])
def target(
    settings: dict[str, Any],
    data: Annotated[
        Path,
        typer.Option(
            help="Directory that `atspeed prepare` made, or with sequential_{train,valid,test}.txt, interactions.jsonl or .parquet of "
            "user, item, timestamp (and kind, value, attributes, context), or LC-Rec's *.inter.json; and "
            "profiles.jsonl or .parquet of users.",
            exists=True,
            file_okay=False,
        ),
    ],
    catalog: Annotated[Path, setting("catalog", exists=True, dir_okay=False)],
    base: Annotated[
        str,
        typer.Option(
            help="Where to start: 'small', 'base' or, where most items were met by few, 'sparse' (from scratch, by a recipe); 'paper', "
            "'t5-scratch' or a config.json (from scratch); or a model directory."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model directory to write; `atspeed serve --target` takes it as it is.")],
    prompt: Annotated[
        Path | None,
        typer.Option(
            help="A prompt.json to train with.", exists=True, dir_okay=False, show_default="the base's; else codes of the last 20 items"
        ),
    ] = None,
    add_tokens: Annotated[
        list[str] | None,
        typer.Option(
            help="A token that the prompt needs beside the catalog's; may be given several times, and {0..1999} in it stands for numbers.",
            metavar="TOKEN",
        ),
    ] = None,
    neighbours: Annotated[
        Path | None,
        typer.Option(
            help="Learn the candidates of a neighbour model, too, made with the same --fit by `atspeed neighbours build`: where data are "
            "sparse, they say more of what could have followed than the one item that did.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train low-rank additions to the attention instead of every weight.")] = False,
    lora_rank: Annotated[int, typer.Option(help="Of the additions, with --lora.", min=1)] = 8,
    threads: Threads = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, and drop an interrupted run with other settings.")] = False,
) -> None:
    """Train a target: a model that writes the identifier of the item that a user will meet next.

    Example: atspeed train target --data data/beauty --catalog data/beauty/beauty.index.json --base small --subsequences --out models/beauty

    The presets small, base and sparse have recipes: defaults that keep a small model from learning data by heart, and judge each epoch.
    A flag that is given goes before its recipe. Of models that are served, --fit all learns the newest interactions, too.

    An interrupted run goes on from its last checkpoint when the same command is given again. For several devices, put
    `accelerate launch -m server.cli` in the place of `atspeed`.
    """
    from drafting.alignment.data.splits import SplitRule
    from drafting.alignment.runs import RunDirectory
    from drafting.catalog.loading import load_catalog
    from drafting.model_files import PROMPT_FILE
    from drafting.neighbours.model import NeighbourModel
    from drafting.prompts.loading import read_prompt

    if neighbours is None and "neighbour_share" in settings:
        fail("--neighbour-share weighs a neighbour model: name its file with --neighbours, or leave --neighbour-share out.")
    with failing():
        RunDirectory(out).refuse_existing(overwrite)
        more = {"lora_rank": lora_rank if lora else 0, "add_tokens": tuple(add_tokens or ())}
        chosen = TargetSettings(**with_recipe(base, settings | more))
        items = load_catalog(catalog)
        rule = SplitRule(split_kind(chosen.split, data), chosen.min_items, chosen.label_kind)
        warn_of_learnt_identifiers(catalog, items, data, rule, [part for part in ("valid", "test") if not has_learnt(chosen.fit, part)])
        template = None if prompt is None else read_prompt(prompt)
        with loading_libraries(threads):
            from drafting.alignment.bases import PRESETS
            from drafting.alignment.target import train_target
            from verification.evaluation.validation import ListValidation
        refuse_unserved(base)
        # A directory may be called as a preset is, which goes before it.
        if prompt is None and base not in PRESETS and (own := Path(base) / PROMPT_FILE).is_file():
            template = read_prompt(own)
        validate = ListValidation(items, chosen.validate_users, keep_seen=chosen.keep_seen) if chosen.validate_users else None
        taught = None if neighbours is None else NeighbourModel.load(neighbours)
        metrics = train_target(
            data,
            items,
            base,
            out,
            settings=chosen,
            template=template,
            overwrite=overwrite,
            validate=validate,
            neighbours=taught,
        )
    valid = "" if metrics.valid_loss is None else f", validation loss {metrics.valid_loss:.3f}"
    if best := next((each for each in metrics.validated if each.epoch == metrics.best_epoch), None):
        valid += f", epoch {best.epoch} of {len(metrics.validated)} with validation Recall@10 {best.recall:.4f} and NDCG@10 {best.ndcg:.4f}"
    typer.echo(f"Wrote {out}: train loss {metrics.train_loss:.3f}{valid}, {took(metrics)}.")
