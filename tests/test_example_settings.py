"""hotswap.example.toml is complete and true."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.settings import Settings, describe, load, value_of

TEXT = (Path(__file__).parents[1] / "hotswap.example.toml").read_text()


def uncommented(folder: Path) -> Path:
    """The example with every setting switched on, except those that are not set and the remote engines."""
    local = TEXT.partition("# [[engines]]")[0]
    lines = [re.sub(r"^# (?=[a-z_]+ = )", "", line) for line in local.splitlines()]
    file = folder / "hotswap.toml"
    file.write_text("\n".join(line for line in lines if ' = ""' not in line))
    return file


def test_the_example_as_it_stands_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "hotswap.toml"
    file.write_text(TEXT)
    assert (Settings(), {"default"}) == (load(file, {})[0], set(load(file, {})[1].values()))


def test_every_value_shown_is_the_default(tmp_path: Path) -> None:
    assert Settings() == load(uncommented(tmp_path), {})[0]


def test_every_setting_is_shown(tmp_path: Path) -> None:
    _, origin = load(uncommented(tmp_path), {})
    hidden = {key for key, where in origin.items() if where == "default" and key != "engines"}
    assert {key for key, _ in describe() if value_of(Settings(), key) is None} == hidden
    unset = set(re.findall(r'^# ([a-z_]+) = ""', TEXT, re.MULTILINE))
    assert {key.rpartition(".")[2] for key in hidden} == unset


def test_the_remote_engine_shown_is_one(tmp_path: Path) -> None:
    block = TEXT.partition("# [[engines]]")[2]
    file = tmp_path / "hotswap.toml"
    file.write_text("[[engines]]\n" + re.sub(r"^# ", "", block.lstrip("\n"), flags=re.MULTILINE))
    assert ["http://10.0.0.7:8000"] == [engine.url for engine in load(file, {})[0].engines]
