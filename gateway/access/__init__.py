"""May this caller do this? API keys now; limits, tenants and budgets come here later.

`Keys.authenticate()` knows a caller from memory, on the request path, also while the database is down.
`gateway.api` asks it; the composition root refreshes it by LISTEN on `CHANNEL`. It may use the engine of
`gateway.db` and `gateway.errors`, nothing else of ours.
"""

from gateway.access.keys import CHANNEL, Key, Keys, Role

__all__ = ["CHANNEL", "Key", "Keys", "Role"]
