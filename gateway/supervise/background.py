"""Work that has time: it gets the processor when nobody else wants it."""

from __future__ import annotations

import os
from pathlib import Path

LEAST = 19
"""The niceness of what comes last."""
AUTOGROUP = Path("/proc/self/autogroup")


def step_back() -> None:
    """This process comes after all that serves requests.

    Niceness alone does not say so everywhere: where Linux groups processes by session (autogroup, the default
    of most distributions; man 7 sched), it counts within a session only. A process with a session of its own,
    as the children of `Child` are, makes its whole group nice, too; else the group is its parent's.
    """
    os.nice(LEAST)
    if os.getsid(0) != os.getpid():
        return
    try:
        AUTOGROUP.write_text(str(LEAST))
    except OSError:
        return  # no Linux, none of its groups, or not ours to say: niceness has to do
