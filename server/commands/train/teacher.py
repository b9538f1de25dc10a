"""`atspeed train teacher`: what a target says of the training histories."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from drafting.alignment.settings import TeacherSettings
from server.commands.options import default, setting, takes_struct
from server.commands.terminal import fail
from server.commands.train.running import Threads, failing, loading_libraries

if TYPE_CHECKING:
    from verification.teacher import Cost


@takes_struct(TeacherSettings, without=["subsequences"])
def teacher(
    settings: TeacherSettings,
    target: Annotated[Path, setting("target", exists=True, file_okay=False)],
    data: Annotated[Path, typer.Option(help="The interactions that the target was trained on.", exists=True, file_okay=False)],
    catalog: Annotated[Path, setting("catalog", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Directory to write; `atspeed train draft --teacher` reads it.")],
    base: Annotated[Path | None, setting("base", exists=True, file_okay=False)] = None,
    newest_only: Annotated[bool, typer.Option("--newest-only", help="Learn only each user's last item, not every one.")] = False,
    draft: Annotated[
        Path | None,
        typer.Option(help="A draft whose lists the target scores as well, for the AtSpeed objectives.", exists=True, file_okay=False),
    ] = None,
    draft_base: Annotated[Path | None, setting("draft_base", exists=True, file_okay=False)] = None,
    kv_memory_gib: Annotated[float, setting("kv_memory_gib")] = default("kv_memory_gib"),
    threads: Threads = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, and drop an interrupted run with other settings.")] = False,
) -> None:
    """Make teacher data: the target's lists over the training histories, and its distributions over the codes of every position.

    Example: atspeed train teacher --target models/beauty --data data/beauty --catalog data/beauty/beauty.index.json --out teachers/beauty

    An interrupted run goes on with its last whole shard when the same command is given again.
    """
    from drafting.alignment.runs import RunDirectory
    from drafting.catalog.loading import load_catalog

    if draft_base is not None and draft is None:
        fail("--draft-base is the base of --draft: name that, too, or leave --draft-base out.")
    with failing("with the last whole shard"):
        RunDirectory(out, "directory of teacher data", "teacher.json").refuse_existing(overwrite)
        settings = msgspec.structs.replace(settings, subsequences=not newest_only)
        items = load_catalog(catalog)
        with loading_libraries(threads):
            from server.engine.loading import memory_told
            from verification.teacher import make_teacher
        with memory_told():
            manifest = make_teacher(
                target,
                data,
                items,
                out,
                base=base,
                settings=settings,
                draft=draft,
                draft_base=draft_base,
                kv_memory_gib=kv_memory_gib,
                overwrite=overwrite,
                announce=_announce,
            )
    counts = manifest.counts
    typer.echo(
        f"Wrote {out}: {counts['trees']:,} prompts with {counts['nodes']:,} prefixes of their lists in {len(manifest.shards)} shards."
    )


def _announce(cost: "Cost") -> None:
    typer.echo(f"{cost.trees:,} prompts in {cost.windows:,} windows; at most {cost.disk_bytes / 2**20:,.0f} MiB on the disk.")
