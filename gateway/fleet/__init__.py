"""Which engine answers: the engines that serve one base, whether each is fit to, and what each has loaded.

`Fleet` is what the rooms above call: `lease(target)` for a request, `forget(version)` before files go away,
`state()` for `hotswap ps`. Called by `gateway.app`, `gateway.api` and the CLI; calls `gateway.supervise` (to
run a local vLLM as a child process), `adapters` (versions, the base's manifest) and nothing else. It neither
reads the registry nor knows routes: the composition root hands it what engines should hold.
"""

from gateway.fleet.engine import Status
from gateway.fleet.fleet import Fleet
from gateway.fleet.lease import Lease
from gateway.fleet.progress import Progress, Stage
from gateway.fleet.state import EngineState, LoadedVersion

__all__ = ["EngineState", "Fleet", "Lease", "LoadedVersion", "Progress", "Stage", "Status"]
