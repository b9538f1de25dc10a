"""Places that a command names: paths, and URLs of object stores (`s3://…`, `gs://…`, `az://…`)."""

from pathlib import Path

from server.catalogs.files import SCHEMES
from server.offline.folder import Folder, FolderError
from server.offline.local_folder import LocalFolder


def is_url(place: str) -> bool:
    """True for what names a file or a folder of an object store, or a local one by `file://`."""
    return "://" in place


def open_folder(place: str) -> Folder:
    """The folder of a path or a URL.

    Raises:
        FolderError: it is no URL of a store.
    """
    scheme, split, rest = place.partition("://")
    if not split or scheme == "file":
        return LocalFolder(Path(rest or place))
    if scheme not in SCHEMES:
        raise FolderError(f"Files lie in directories or below URLs of {', '.join(f'{each}://' for each in SCHEMES)}; got {place}.")
    # Most runs need no object store, and a process that has used one can't be forked any more.
    from server.offline.object_folder import ObjectFolder

    return ObjectFolder(place)
