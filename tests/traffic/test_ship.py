"""What the shipper's process says of what is away."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError

from gateway.traffic.ship import _told


def test_of_postgres_the_reason_and_no_values() -> None:
    error = OperationalError("DELETE FROM x WHERE y = :y", {"y": "alice"}, Exception("connection refused"))
    assert _told(error, "/lake") == "Postgres: (builtins.Exception) connection refused"


def test_of_the_store_the_reason_without_colours() -> None:
    error = OSError("Kernel error -> S3 error\n   \x1b[31m↳\x1b[0m GET failed\n    \x1b[31m↳\x1b[0m refused")
    assert _told(error, "s3://t/l") == "the lake in s3://t/l: Kernel error -> S3 error GET failed refused"
