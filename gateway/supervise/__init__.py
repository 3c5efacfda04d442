"""Processes that must not outlive us, and one `up` per state directory.

Here live `Child` (a command on a leash: it and its descendants end when we do, even by `kill -9`), `keep`
(runs a child again whenever it ends), `sweep` (ends what an earlier, killed run left behind), `Lock` (one run
per state directory), `log_to` and `free_port`. `gateway.db`, `gateway.fleet` and `gateway.traffic` call it to
run Postgres, engines and the shipper, the command line to start and stop everything. It calls nothing of
ours. Linux only: it stands on /proc, prctl and flock.
"""

from gateway.supervise.child import Child
from gateway.supervise.keep import keep
from gateway.supervise.lock import Lock, Locked
from gateway.supervise.logfile import log_to
from gateway.supervise.port import NoPort, free_port
from gateway.supervise.survivors import Unkillable, sweep

__all__ = ["Child", "Lock", "Locked", "NoPort", "Unkillable", "free_port", "keep", "log_to", "sweep"]
