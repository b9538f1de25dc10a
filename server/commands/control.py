"""`atspeed control`: the state that replicas agree on, as a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.terminal import fail, failing_on

if TYPE_CHECKING:
    from server.client import AtspeedClient

control_app = typer.Typer(help="Back up and restore what replicas agree on.", no_args_is_help=True)

_Url = Annotated[str, typer.Option(help="URL of any replica, such as http://127.0.0.1:8000.")]
_LOCAL = "http://127.0.0.1:8000"


@control_app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="File to write; one that is there is replaced.", dir_okay=False)],
    url: _Url = _LOCAL,
) -> None:
    """Save what replicas agree on: versions of the catalog, which one is served, named filters.

    Example: atspeed control backup control.backup --url http://recommender.internal:8000

    It comes from the memory of the replica that answers, so it works while the control store is away, and after it has lost its state. The
    catalogs' own files are not in it: back up the directory or the object store of --catalogs, too. A server with keys asks for one with
    the scope operate, in ATSPEED_KEY or the file that ATSPEED_KEY_FILE names.
    """
    from server.client import AtspeedError

    with _client(url) as client, failing_on(AtspeedError):
        content = client.back_up_control()
    unfinished = file.with_name(f"{file.name}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(file)
    except OSError as error:
        fail(f"{file} can't be written: {error.strerror}.")
    typer.echo(f"{file} holds the state, {len(content):,} bytes.")


@control_app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `atspeed control backup` made.", exists=True, dir_okay=False)],
    url: _Url = _LOCAL,
) -> None:
    """Put a saved state in place of what replicas agree on, or back into a control store that has lost it.

    Example: atspeed control restore control.backup --url http://recommender.internal:8000

    All replicas become what the file says, within a second as a rule; what was written since the backup is gone. A replica that can't, such
    as when the file of a version is gone, is not ready and says why at /v1/control. The key is as that of `backup`.
    """
    from tqdm import tqdm

    from server.client import AtspeedError

    with _client(url) as client, tqdm(total=file.stat().st_size, desc="sending", unit="B", unit_scale=True) as bar:
        try:
            restored = client.restore_control(file, on_bytes=lambda sent, _: bar.update(sent - bar.n))
        except AtspeedError as error:
            bar.close()
            fail(str(error))
    typer.echo(f"The state is restored, as revision {restored.revision}.")


def _client(url: str) -> "AtspeedClient":
    from server.client import AtspeedClient

    with failing_on(ValueError):
        return AtspeedClient(url)
