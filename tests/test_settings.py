"""Flag > environment > file > default, and errors that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import SettingsError, load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hotswap.toml"
    path.write_text('[server]\nport = 1111\nhost = "127.0.0.2"\ndrain_s = 5\n')
    return path


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(file: Path) -> None:
    settings, origin = load(
        file, {"HOTSWAP_SERVER__PORT": "2222", "HOTSWAP_SERVER__HOST": "127.0.0.3"}, {"server.port": 3333}
    )
    assert (settings.server.port, origin["server.port"]) == (3333, "flag")
    assert (settings.server.host, origin["server.host"]) == ("127.0.0.3", "env HOTSWAP_SERVER__HOST")
    assert (settings.server.drain_s, origin["server.drain_s"]) == (5, f"file {file}")
    assert (settings.engine.max_loras, origin["engine.max_loras"]) == (8, "default")


def test_a_flag_that_was_not_given_changes_nothing(file: Path) -> None:
    assert load(file, {}, {"server.port": None})[0].server.port == 1111


def test_an_unknown_key_suggests_the_nearest_one(tmp_path: Path) -> None:
    path = tmp_path / "hotswap.toml"
    path.write_text("[server]\nprot = 1\n")
    with pytest.raises(SettingsError, match=r"'server\.prot'; did you mean 'server\.port'"):
        load(path, {})


def test_an_impossible_value_names_the_key_the_value_and_where_it_came_from() -> None:
    with pytest.raises(SettingsError, match=r"server\.port = 99999 \(env HOTSWAP_SERVER__PORT\)"):
        load(None, {"HOTSWAP_SERVER__PORT": "99999"})


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load(tmp_path / "no.toml", {})


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hotswap.toml"
    path.write_text("server = [")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load(path, {})


def test_remote_engines_can_come_from_the_environment() -> None:
    settings, _ = load(None, {"HOTSWAP_ENGINES": '[{url = "http://127.0.0.1:1"}]'})
    assert settings.engines[0].url == "http://127.0.0.1:1"


def test_a_variable_that_is_no_setting_is_left_alone() -> None:
    assert load(None, {"HOTSWAP_API_KEY": "x", "HOTSWAP_URL": "y"})[0].server.port == 8000
