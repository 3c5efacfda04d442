"""The plugin that keeps a missing part from looking like a passed test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPED = "import pytest\ndef test_it(): pytest.skip('no llama here')\n"
SKIPPED_MODULE = "import pytest\npytest.skip('no llama here', allow_module_level=True)\n"


def session(folder: Path, source: str, ci: str) -> subprocess.CompletedProcess[str]:
    file = folder / "test_sample.py"
    file.write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "tests.no_skips", "-c", os.devnull, "-q", str(file)]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("source", [SKIPPED, SKIPPED_MODULE])
def test_a_skip_fails_the_run_in_ci_and_names_what_is_missing(tmp_path: Path, source: str) -> None:
    ended = session(tmp_path, source + "\ndef test_other(): pass\n", ci="true")
    assert ended.returncode != 0
    assert "no llama here" in ended.stdout


def test_a_skip_is_only_named_on_a_laptop(tmp_path: Path) -> None:
    ended = session(tmp_path, SKIPPED, ci="")
    assert (0, True) == (ended.returncode, "which fails the run in CI" in ended.stdout)


def test_it_gets_along_with_a_conftest_in_a_folder_below(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "conftest.py").touch()
        (tmp_path / name / f"test_{name}.py").write_text("def test_it(): pass")
    command = [sys.executable, "-m", "pytest", "-p", "tests.no_skips", "-c", os.devnull, "-q", tmp_path]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    ended = session(tmp_path, "import pytest\n@pytest.mark.xfail\ndef test_it(): assert 0\n", ci="true")
    assert ended.returncode == 0
