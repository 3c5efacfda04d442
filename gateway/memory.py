"""How this process takes memory and gives it back: so that it does not grow over hours of mixed sizes."""

from __future__ import annotations

import asyncio
import ctypes
import gc

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # malloc.h of glibc
OWN_MAPPING = 64 * 1024
"""Bytes from which an allocation gets pages of its own, which go back to the kernel when it is freed."""
GIVE_BACK_S = 10.0
"""Between two times that free pages within the heap go back: 1 ms after 2,000 streams, 0.1 ms usually."""


def keep_steady() -> bool:
    """Tells glibc's malloc to give large pieces back, and to keep one heap; whether there is such a malloc.

    Left alone, glibc raises its threshold for own mappings to the largest piece ever freed (mallopt(3),
    M_MMAP_THRESHOLD), so that large, short-lived pieces come out of the heap from then on. What is allocated
    meanwhile lands behind them, and the heap grows by some 200 KB at a time though nothing is kept: measured
    at 20 requests a second, the bytes in use stood still and the heap grew by 1.6 MB an hour.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, OWN_MAPPING)) and bool(mallopt(M_ARENA_MAX, 1))


def give_back() -> bool:
    """Free pages within the heap go back to the kernel; whether any did. By itself glibc gives back its end
    only, and what stands there may stay: 5 of 150 MB after 2,000 streams.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):  # another C library
        return False


async def keep_giving_back() -> None:
    """Every `GIVE_BACK_S`, until cancelled."""
    while True:
        await asyncio.sleep(GIVE_BACK_S)
        give_back()


def settle_heap() -> None:
    """What is there now stays: the garbage collector leaves it out from here on, until `gc.unfreeze()`.

    A pass that walks all of it would hold every stream up for tens of milliseconds, and would find
    nothing. The second collection is for the collector's rule of when to look at the old generation: when
    a quarter of what survived the last full pass has been added. With the start's heap counted, that is
    once in half an hour, and what died old piles up until then.
    """
    gc.collect()
    gc.freeze()
    gc.collect()
