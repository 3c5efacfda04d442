"""The command line against the whole product before a fake engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.house import House
from tests.peft_folder import random_adapter


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys; from gateway.cli import main; sys.argv = ['hotswap', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'fastapi', 'torch', 'sqlalchemy', 'httpx'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "adapters" in done.stdout


def test_an_adapter_goes_from_add_to_rm(fake_house: House, tmp_path: Path) -> None:
    one, two = (str(random_adapter(tmp_path / str(seed), TINY, seed)) for seed in (41, 42))
    first = json.loads(fake_house.cli("adapters", "add", "tour", one, "--json").stdout)
    second = json.loads(fake_house.cli("adapters", "add", "tour", two, "--json").stdout)
    assert [first["state"], second["state"]] == ["stable", "registered"]

    assert fake_house.cli("adapters", "promote", "tour@v2", "--force").returncode == 0
    assert f"({second['name']}" in fake_house.cli("run", "tour", "hi").stderr
    assert fake_house.cli("adapters", "rollback", "tour").returncode == 0
    assert f"({first['name']}" in fake_house.cli("run", "tour", "hi").stderr

    assert first["name"] in fake_house.cli("ps").stdout
    assert second["name"] in fake_house.cli("adapters", "show", "tour").stdout
    assert "tour" in fake_house.cli("adapters", "ls").stdout
    assert fake_house.cli("adapters", "diff", "tour@v1", "tour@v2").returncode == 0

    assert fake_house.cli("adapters", "rm", "tour@v1", "--yes").returncode == 1  # it is stable
    dry = fake_house.cli("adapters", "rm", "tour", "--dry-run")
    assert "removes 2" in dry.stderr
    assert fake_house.cli("adapters", "rm", "tour", "--yes").returncode == 0
    gone = fake_house.cli("run", "tour", "hi")
    assert (gone.returncode, "does not exist" in gone.stderr) == (1, True)


def test_a_refusal_is_one_line_that_says_what_to_do(fake_house: House, tmp_path: Path) -> None:
    folder = random_adapter(tmp_path / "a", TINY, seed=1, rank=64)
    refused = fake_house.cli("adapters", "add", "high", str(folder))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "rank 64" in refused.stderr
    assert "Retrain with r<=32" in refused.stderr


def test_a_source_that_is_nothing_is_refused(fake_house: House) -> None:
    assert "neither a folder nor a hub id" in fake_house.cli("adapters", "add", "x", "./nothing").stderr


def test_an_unreachable_hub_is_named(fake_house: House) -> None:
    fake_house.environment["HF_HUB_OFFLINE"] = "1"
    try:
        refused = fake_house.cli("adapters", "add", "x", "someone/adapter")
    finally:
        del fake_house.environment["HF_HUB_OFFLINE"]
    assert refused.returncode == 1
    assert "cannot fetch 'someone/adapter'" in refused.stderr


def test_a_key_is_made_listed_and_revoked(fake_house: House) -> None:
    made = json.loads(fake_house.cli("keys", "create", "--label", "app", "--json").stdout)
    assert made["id"] in fake_house.cli("keys", "ls").stdout
    assert made["secret"] not in fake_house.cli("keys", "ls", "--json").stdout
    assert fake_house.cli("keys", "revoke", made["id"]).returncode == 0
    environment = {**fake_house.environment, "HOTSWAP_API_KEY": made["secret"]}
    refused = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "run", "tiny", "hi"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (refused.returncode, "API key" in refused.stderr) == (1, True)


def test_without_a_gateway_the_exit_code_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "HOTSWAP_STATE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "ps"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, "hotswap up" in done.stderr) == (3, True)


@pytest.mark.parametrize("words", [["config", "check"], ["config", "check", "--json"]])
def test_config_check_prints_values_and_origins(fake_house: House, words: list[str]) -> None:
    shown = fake_house.cli(*words).stdout
    assert "HOTSWAP_BASE__NAME" in shown
    assert "server.max_body_bytes" in shown
