"""How a wait for an engine ends, if not with a seat there.

QueueFull   the queue, or the key's share of it, is full; `retry_after_s`
Late        the deadline passed in the queue; `retry_after_s`
Over        the boot ended: go to another engine
Taken       another engine let it in; `by`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.fleet.admission import Admission


class QueueFull(Exception):
    """Nobody more may wait; `retry_after_s` is when one more would be through."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the queue is full; try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Late(Exception):
    """The deadline came first; `retry_after_s` is when one more would be through."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the deadline passed in the queue; try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Over(Exception):
    """This boot of the engine has ended."""

    def __init__(self) -> None:
        super().__init__("this boot of the engine has ended")


class Taken(Exception):
    """It is in at another boot, with the admission `by`, where `leave` must follow."""

    def __init__(self, by: Admission) -> None:
        super().__init__("another engine let it in")
        self.by = by
