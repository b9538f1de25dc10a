"""The small disk: full for a while, and never more than the soak's own."""

import errno
import os
from pathlib import Path

import pytest

from benchmarks.soak.disk import SmallDisk


def test_a_full_disk_takes_nothing_until_it_is_freed(tmp_path: Path):
    with SmallDisk(tmp_path / "disk") as disk:
        if not disk.can_fill:
            assert "not filled" in disk.kind
            pytest.skip(f"the disk is {disk.kind}")
        (disk.folder / "kept").write_bytes(b"kept")
        disk.fill()
        assert disk.full
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            (disk.folder / "more").write_bytes(bytes(8192))
        disk.free()
        (disk.folder / "more").write_bytes(bytes(8192))
        assert (disk.folder / "kept").read_bytes() == b"kept"
    assert not list(disk.folder.iterdir())
