"""Limits of what is read as a catalog, for files that others have made.

Invariant: a limit takes effect while a file is read, before what exceeds it is in memory.
"""

import math
import sys
from dataclasses import dataclass

from drafting.catalog.catalog import CatalogError

# Small files may be packed as tightly as they like.
_FREE_BYTES = 2**25


@dataclass(frozen=True)
class ReadLimits:
    """How much a catalog may be; unlimited by default.

    Attributes:
        items: most items.
        ratio: most bytes that a byte of a compressed file may become.
    """

    items: int = sys.maxsize
    ratio: float = math.inf

    def check_items(self, items: int) -> None:
        """Check a number of items.

        Raises:
            CatalogError: there are too many.
        """
        if items > self.items:
            raise CatalogError(f"The catalog has {items:,} items or more; at most {self.items:,} are read.")

    def check_ratio(self, unpacked: int, packed: int) -> None:
        """Check how many bytes the `packed` bytes of a file have become so far.

        Raises:
            CatalogError: too many.
        """
        if unpacked > max(_FREE_BYTES, self.ratio * packed):
            raise CatalogError(f"The file unpacks to more than {self.ratio:g} times its size, which no catalog needs: it is not read.")


UNLIMITED = ReadLimits()
