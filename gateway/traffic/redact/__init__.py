"""Take personal data and secrets out of traffic before anything of it touches a disk.

`redact(text)` for one string, `redact_json(value)` for a decoded body: both return what is safe to keep and
the `Counts` of what was taken out. Pure functions with no state, that never raise, take linear time, and
change nothing when applied to their own result. Called by `gateway.traffic`; calls nothing of ours.
"""

from gateway.traffic.redact.kinds import PATTERNS_VERSION, Counts, Kind
from gateway.traffic.redact.text import redact
from gateway.traffic.redact.tree import redact_json

__all__ = ["PATTERNS_VERSION", "Counts", "Kind", "redact", "redact_json"]
