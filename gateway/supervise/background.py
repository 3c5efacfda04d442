"""Work that has time: it gets little of a processor that others want."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NICE = 10
"""A tenth of a core beside something that wants all of it. With 19, a seventieth, a shipper under load would
fall behind until the journal is full."""
AUTOGROUP = Path("/proc/self/autogroup")


def step_back() -> None:
    """This process comes after all that serves requests.

    Niceness alone does not say so everywhere: where Linux groups processes by session (autogroup, the default
    of most distributions; man 7 sched), it counts within a session only. A process with a session of its own,
    as the children of `Child` are, makes its whole group nice, too; else the group is its parent's.
    """
    os.nice(NICE)
    if os.getsid(0) != os.getpid():
        return
    try:
        AUTOGROUP.write_text(str(NICE))
    except OSError:
        return  # no Linux, none of its groups, or not ours to say: niceness has to do


def main() -> None:
    """`python -m gateway.supervise.background COMMAND...` becomes COMMAND, stepped back."""
    step_back()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - that is the point


if __name__ == "__main__":
    main()
