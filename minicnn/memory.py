"""Whether this machine has the memory for what is asked of it."""

from __future__ import annotations

import os


def require_memory(needed: int, what: str) -> None:
    """Raise MemoryError if something needs more bytes than the machine has.

    Linux grants memory that it does not have, and ends the process when it is used.
    """
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise MemoryError(
            f"{what} need {needed / 2**30:,.1f} GiB, this machine has {there / 2**30:,.1f} GiB"
        )
