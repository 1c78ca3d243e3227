"""Memory that an update gives back and takes again, many times a second."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_MAX_INT = 2**31 - 1


def keep_pages() -> None:
    """Lets glibc keep freed blocks for the process, however large.

    By default a tensor of some megabytes comes fresh from the kernel at every update, and each of
    its pages costs a fault: 16,000 of them, and 8 % of the time, in a dream of size 1m.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _MAX_INT)
