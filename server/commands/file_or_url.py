"""Files that a command reads: a path, or the URL of a file in an object store."""

import atexit
import shutil
import tempfile
from pathlib import Path

import typer

URL_HELP = "or the URL of one in an object store (s3://bucket/items.parquet, gs://…, az://…)"


def file_or_url(text: str) -> Path:
    """The path of a file; of one in an object store, that of a temporary copy, which is gone with the process.

    Raises:
        typer.BadParameter: there is no such file, or it can't be read.
    """
    if "://" not in text:
        if not Path(text).is_file():
            raise typer.BadParameter(f"there is no file {text}.")
        return Path(text)
    # Only here: importing obstore and the server's errors takes time.
    from server.catalogs.files import open_objects
    from server.try_again import FilesUnavailable

    folder, _, name = text.rpartition("/")
    try:
        objects = open_objects(folder)
        if objects is None or not objects.has(name):
            raise typer.BadParameter(f"there is no file {text}.")
        copies = Path(tempfile.mkdtemp(prefix="atspeed-"))
        atexit.register(shutil.rmtree, copies, ignore_errors=True)
        objects.get(name, copies / name)
    except (ValueError, FilesUnavailable) as error:
        raise typer.BadParameter(f"{text} can't be read: {str(error).rstrip('.')}.") from error
    return copies / name
