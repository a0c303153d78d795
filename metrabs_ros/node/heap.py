"""
Settings of the C library's memory allocator for processes that run for weeks.

By default, glibc gives each thread an arena of its own, up to eight per core, and an arena keeps
the memory that was freed in it.  A model that is loaded and released again starts and ends
threads, so that memory grows with each cycle although nothing leaks.
"""

from __future__ import annotations

import ctypes

MAX_ARENAS = 2
M_ARENA_MAX = -8
"""Of malloc.h."""
LIBC = ctypes.CDLL(None)


def limit_arenas(count: int = MAX_ARENAS) -> None:
    """Let all threads share a number of arenas; has no effect in C libraries without arenas."""
    if hasattr(LIBC, 'mallopt'):
        LIBC.mallopt(M_ARENA_MAX, count)


def return_free_memory() -> None:
    """Give memory that was freed back to the operating system, where the C library can do so."""
    if hasattr(LIBC, 'malloc_trim'):
        LIBC.malloc_trim(ctypes.c_size_t(0))
