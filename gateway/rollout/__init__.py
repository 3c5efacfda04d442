"""Which version answers? Routes now; sticky splits, shadows and rollback decisions later.

Called by `gateway.api` and `gateway.app`; calls `adapters` (the registry). Nothing here waits on the request
path: `Routes.resolve` reads one immutable snapshot in memory.
"""
