"""The C library's heap, of a process that runs for months while threads come and go.

Python keeps small objects in places of its own; what is larger, and what libvirt, SQLite and TLS allocate, is here.
What is in use stays the same over thousands of calls. But what lives long comes to lie between what does not, so holes
stay behind that the next allocation may not fit into, and by itself glibc gives back only what is free at the end.
"""

from __future__ import annotations

import asyncio
import ctypes

GIVE_BACK_EACH_S = 300.0
_M_ARENA_MAX = -8  # <malloc.h>


def keep_small() -> None:
    """All threads allocate from one heap. glibc would give them up to eight for each processor, and each would grow to
    the most that any thread ever held at once.

    That large allocations have pages of their own, which go back when they are freed, is left to glibc. It learns from
    the first ones to make those that follow on the heap; held to the former, a page of 1,000 instances takes a third
    longer.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library may have none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Pages in which nothing is go back to the system. Whoever allocates meanwhile waits, some milliseconds."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))


async def stay_small() -> None:
    while True:
        await asyncio.sleep(GIVE_BACK_EACH_S)
        await asyncio.to_thread(give_back)
