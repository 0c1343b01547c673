"""How the C library hands out memory in a process that computes on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of glibc's options (malloc.h)."""


def keep_freed_memory() -> None:
    """Use freed memory again, rather than give it back to the kernel and ask for it anew in the next step.

    glibc maps every tensor of more than 32 MB by itself and unmaps it when it is freed, so that the kernel clears its
    pages anew in every step: a quarter of the processor time of training. The process keeps the most that it has needed
    at one time. Nothing changes where the C library is another one, or where its environment variables say otherwise.
    """
    if platform.libc_ver()[0] != "glibc" or {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)
