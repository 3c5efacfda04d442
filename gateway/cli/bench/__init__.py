"""`hotswap bench`: load tests, each verb thin over `loadtests`, which is imported when a verb runs.

Called by `gateway.cli` alone; may call `loadtests`, inside functions.
"""

from gateway.cli.bench.group import bench

__all__ = ["bench"]
