"""`hotswap train --dry-run` and `hotswap recipes` before a whole product, and without any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.house import House
from tests.training import light_base
from training.rows import chat, write_rows


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl", [chat(f"question {n}", f"answer {n % 7}") for n in range(60)])
    return tmp_path / "rows.jsonl"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return light_base.write(tmp_path_factory.mktemp("light") / "base")


def hotswap(base: Path, state: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")}
    environment |= {"HOTSWAP_BASE__PATH": str(base), "HOTSWAP_STATE_DIR": str(state), **more}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words], capture_output=True, text=True, env=environment
    )


def test_the_fleet_says_up_to_which_rank_it_serves(fake_house: House) -> None:
    answer = httpx.get(f"{fake_house.url}/admin/v1/fleet", headers=fake_house.headers, timeout=30).json()
    assert {"max_lora_rank": 32} == answer["limits"]


def test_a_recipe_takes_its_rank_from_the_running_fleet(
    fake_house: House, base: Path, rows: Path, tmp_path: Path
) -> None:
    """The settings here would allow 128; the fleet that is up serves 32."""
    done = hotswap(
        base,
        tmp_path / "state",
        *("train", "case", "--data", str(rows), "--dry-run", "--rank", "64", "--baseline", "0", "--json"),
        HOTSWAP_URL=fake_house.url,
        HOTSWAP_API_KEY=fake_house.key,
        HOTSWAP_ENGINE__MAX_LORA_RANK="128",
    )
    report = json.loads(done.stdout)
    assert (1, "no") == (done.returncode, report["verdict"])
    assert "this fleet serves up to 32" in report["findings"][-1]["message"]


def test_a_gateway_that_is_gone_is_not_waited_for(base: Path, rows: Path, tmp_path: Path) -> None:
    done = hotswap(
        base,
        tmp_path / "state",
        *("train", "case", "--data", str(rows), "--dry-run"),
        HOTSWAP_URL="http://127.0.0.1:9",
        HOTSWAP_API_KEY="none",
    )
    assert 0 == done.returncode, done.stdout + done.stderr


def test_a_baseline_that_was_asked_for_needs_a_gateway(base: Path, rows: Path, tmp_path: Path) -> None:
    done = hotswap(
        base, tmp_path / "state", "train", "case", "--data", str(rows), "--dry-run", "--baseline", "4"
    )
    assert (3, True) == (done.returncode, "no gateway is running" in done.stderr)


def test_strict_takes_warnings_for_errors(base: Path, rows: Path, tmp_path: Path) -> None:
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    words = ("train", "case", "--data", str(rows), "--dry-run")
    assert [0, 1] == [
        hotswap(base, tmp_path / "state", *words, *more).returncode for more in ((), ("--strict",))
    ]


def test_any_key_of_a_recipe_can_be_set(base: Path, rows: Path, tmp_path: Path) -> None:
    words = ("train", "case", "--data", str(rows), "--dry-run", "--json")
    done = hotswap(base, tmp_path / "state", *words, "--set", "dropout=0.2", "--set", "init=eva")
    recipe = json.loads(done.stdout)["recipe"]
    assert (0.2, "eva") == (recipe["dropout"]["value"], recipe["init"]["value"])


def test_a_run_with_a_bad_row_is_refused_before_torch_is_loaded(
    base: Path, rows: Path, tmp_path: Path
) -> None:
    rows.write_text(rows.read_text() + "{\n")
    done = hotswap(
        base, tmp_path / "state", "train", "case", "--data", str(rows), "--no-register", "--out", "x"
    )
    assert (1, True, False) == (
        done.returncode,
        f"{rows}:61: is not JSON" in done.stderr,
        "loading the base" in done.stderr,
    )


def test_the_presets_are_shown_beside_each_other(base: Path, tmp_path: Path) -> None:
    done = hotswap(base, tmp_path / "state", "recipes", "show")
    first, *rest = done.stdout.splitlines()
    assert (["quick", "balanced", "thorough"], 0) == (first.split(), done.returncode)
    assert any(line.split() == ["rank", "8", "16", "32"] for line in rest)


def test_one_preset_is_shown_with_its_reasons(base: Path, rows: Path, tmp_path: Path) -> None:
    done = hotswap(base, tmp_path / "state", "recipes", "show", "quick", "--data", str(rows), "--json")
    shown = json.loads(done.stdout)["quick"]
    assert (8, True) == (shown["rank"]["value"], "start [rules]" in shown["rank"]["why"])
