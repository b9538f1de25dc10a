"""What this process keeps of the memory that it has freed.

Invariant: needs nothing but the C library, as a machine with PyTorch and transformers alone runs models, too.
"""

import ctypes
import platform

# glibc's numbers of what `mallopt` sets: free bytes at the end of the heap, and the size from which memory is the kernel's own.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**28
# Older releases of glibc take no higher threshold.
_OLD_MMAP_BYTES = 2**25


def keep_freed_memory() -> None:
    """Have the C library keep up to `KEPT_BYTES` that are freed, where it is glibc.

    By itself it gives back what a wide forward has used, and the kernel clears it anew, page by page, for the next one.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
    # The first has frozen the second, wherever that was.
    if not mallopt(_MMAP_THRESHOLD, KEPT_BYTES):
        mallopt(_MMAP_THRESHOLD, _OLD_MMAP_BYTES)
