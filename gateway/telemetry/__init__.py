"""What the gateway says about itself in numbers: counted beside the request path, shown at /metrics.

`tally` is the memory that is counted in (shared by the workers of one machine), `exchanges` counts finished
exchanges into it, and `exposition` writes it as Prometheus reads it. Called by `gateway.app` and
`gateway.api`; calls nothing of ours. (Later: OpenTelemetry traces and the GenAI metrics of issue 8.)
"""

from gateway.telemetry.exchanges import Exchanges
from gateway.telemetry.exposition import CONTENT_TYPE, exposition
from gateway.telemetry.tally import Tally

__all__ = ["CONTENT_TYPE", "Exchanges", "Tally", "exposition"]
