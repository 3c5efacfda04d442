"""Work in the background leaves the processor to what serves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.supervise import background

PROGRAM = """
import os
from gateway.supervise.background import step_back
from tests.supervise.test_background import group
before = group()
step_back()
print(os.nice(0), before, group())
"""


def group() -> str:
    """How nice this process's group is. The file is empty for who is in a group of another kind (cgroup)."""
    said = background.AUTOGROUP.read_text().split() if background.AUTOGROUP.exists() else []
    return said[-1] if said else "none"


@pytest.mark.parametrize("alone", [True, False])
def test_it_comes_last_and_so_does_its_group_unless_others_are_in_it(alone: bool) -> None:
    words, ours = [sys.executable, "-c", PROGRAM], group()
    said = subprocess.run(
        words, capture_output=True, text=True, check=True, start_new_session=alone, timeout=60
    )
    nice, before, after = said.stdout.split()
    assert nice == "10"
    assert after == ("10" if alone and before != "none" else before)
    assert group() == ours


def test_where_there_are_no_groups_niceness_has_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("os.nice", lambda by: asked.append(by) or by)
    monkeypatch.setattr(background, "AUTOGROUP", tmp_path / "none" / "autogroup")
    monkeypatch.setattr("os.getsid", lambda of: os.getpid())
    background.step_back()
    assert [10] == asked
