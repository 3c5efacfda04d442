"""Which version answers? `routes` now. What a rollout will stand on is here and nobody calls it yet: `split`
(units to targets) and `evidence` (`goal` by `spending`, `guard`: better, worse, or not known).

Called by `gateway.api` and `gateway.app`; calls `adapters` (the registry). Nothing here waits on the request
path: `Routes.resolve` reads one immutable snapshot in memory.
"""
