"""`atspeed train teacher`: what a target says of the training histories."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.failure import fail
from server.commands.options import default, setting
from server.commands.train.libraries import loading_libraries

if TYPE_CHECKING:
    from verification.teacher import Cost


def teacher(
    target: Annotated[Path, setting("target", exists=True, file_okay=False)],
    data: Annotated[Path, typer.Option(help="The interactions that the target was trained on.", exists=True, file_okay=False)],
    catalog: Annotated[Path, setting("catalog", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Directory to write; `atspeed train draft --teacher` reads it.")],
    beams: Annotated[int, typer.Option(help="Lists per prompt.")] = 20,
    top: Annotated[int, typer.Option(help="Codes per position whose probabilities are kept one by one.")] = 32,
    trees: Annotated[int, typer.Option(help="Prompts per window that lists are searched for, the newest first.")] = 1,
    newest_only: Annotated[bool, typer.Option("--newest-only", help="Learn only each user's last item, not every one.")] = False,
    draft: Annotated[Path | None, typer.Option(help="A draft whose lists the target judges as well.", exists=True, file_okay=False)] = None,
    split: Annotated[
        str, typer.Option(help="Of a stream of interactions, as the target's: leave-one-out or global-time (8:1:1).")
    ] = "leave-one-out",
    min_items: Annotated[int, typer.Option(help="Leave out users with fewer interactions, as for the target.")] = 1,
    kv_memory_gib: Annotated[float, setting("kv_memory_gib")] = default("kv_memory_gib"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, and drop an interrupted run with other settings.")] = False,
) -> None:
    """Make teacher data: the target's lists over the training histories, and its distributions over the codes of every position.

    Example: atspeed train teacher --target models/beauty --data data/beauty --catalog data/beauty/beauty.index.json --out teachers/beauty

    An interrupted run goes on with its last whole shard when the same command is given again.
    """
    from drafting.alignment.runs import RunDirectory
    from drafting.alignment.settings import TeacherSettings, TrainingError
    from drafting.catalog.catalog import CatalogError
    from drafting.catalog.loading import load_catalog
    from drafting.errors import SetupError

    try:
        RunDirectory(out, "directory of teacher data", "teacher.json").refuse_existing(overwrite)
        settings = TeacherSettings(beams=beams, top=top, trees=trees, subsequences=not newest_only, split=split, min_items=min_items)
        items = load_catalog(catalog)
    except (TrainingError, CatalogError) as error:
        fail(str(error))
    with loading_libraries():
        from drafting.alignment.data.interactions import InteractionError
        from verification.teacher import make_teacher
    try:
        manifest = make_teacher(
            target, data, items, out, settings=settings, draft=draft, kv_memory_gib=kv_memory_gib, overwrite=overwrite, announce=_announce
        )
    except (InteractionError, TrainingError, SetupError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("Interrupted: the same command goes on with the last whole shard.")
    counts = manifest.counts
    typer.echo(
        f"Wrote {out}: {counts['trees']:,} prompts with {counts['nodes']:,} prefixes of their lists in {len(manifest.shards)} shards."
    )


def _announce(cost: "Cost") -> None:
    typer.echo(f"{cost.trees:,} prompts in {cost.windows:,} windows; at most {cost.disk_bytes / 2**20:,.0f} MiB on the disk.")
