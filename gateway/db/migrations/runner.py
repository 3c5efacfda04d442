"""Alembic from within: no ini file, no logging set-up, one transaction under one lock."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import URL

LOCK = 0x686F7473776170
"""Key of the advisory lock under which schemas are migrated ("hotswap")."""


def config() -> Config:
    """Alembic's configuration; the scripts lie beside this file, in a checkout and in an installed wheel."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return found


def upgrade(url: URL) -> None:
    """Upgrade to head, all of it or nothing; blocks, also while another process upgrades."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        # Held to the end of the transaction. Alembic reads the current revision after it, so whoever waited
        # finds nothing left to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        alembic = config()
        alembic.attributes["connection"] = connection
        command.upgrade(alembic, "head")
