"""
Settings of the C memory allocator for long-running processes.

By default, glibc creates one arena per thread, up to eight per core, and each arena retains freed
memory.  Loading and releasing a model starts and ends threads.  The resident memory would
therefore grow with each lifecycle cycle although nothing leaks.
"""

from __future__ import annotations

import ctypes

MAX_ARENAS = 2
M_ARENA_MAX = -8
"""Option M_ARENA_MAX of mallopt, from malloc.h."""
LIBC = ctypes.CDLL(None)


def limit_arenas(count: int = MAX_ARENAS) -> None:
    """
    Limit the number of malloc arenas; no effect in C libraries without arenas.

    It must be called before modules are imported that start threads, such as numpy, because
    existing arenas stay.
    """
    if hasattr(LIBC, 'mallopt'):
        LIBC.mallopt(M_ARENA_MAX, count)


def return_free_memory() -> None:
    """Return freed memory to the operating system if the C library supports it."""
    if hasattr(LIBC, 'malloc_trim'):
        LIBC.malloc_trim(ctypes.c_size_t(0))
