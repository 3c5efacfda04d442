"""The Dockerfile promises nothing that the project does not hold. No daemon is needed to see that."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from gateway.settings import load

ROOT = Path(__file__).parents[1]
LINES = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text()).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(word: str) -> list[str]:
    return [line.removeprefix(f"{word} ") for line in LINES if line.startswith(f"{word} ")]


def stages() -> list[str]:
    return [line.rpartition(" AS ")[2] for line in instructions("FROM")]


def copied() -> list[str]:
    """What is copied from the build context (not from another stage)."""
    return [
        source
        for line in instructions("COPY")
        if not line.startswith("--from=")
        for source in line.split()[:-1]
    ]


def test_the_three_targets_are_there() -> None:
    assert {"gateway", "engine", "worker"} <= set(stages())


def test_a_stage_builds_only_on_stages_before_it() -> None:
    known = {"${PYTHON_IMAGE}"}
    for line in instructions("FROM"):
        origin, _, name = line.partition(" AS ")
        assert origin in known
        known.add(name)
    assert {
        line.split()[0].removeprefix("--from=") for line in instructions("COPY") if "--from=" in line
    } <= known


def test_everything_that_is_copied_exists_and_is_in_the_build_context() -> None:
    assert [] == [source for source in copied() if not (ROOT / source).exists()]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == set(copied())


def test_every_package_of_the_wheel_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied())


def test_every_extra_that_is_named_is_one_of_the_project() -> None:
    text = "\n".join(LINES)
    named = set(re.findall(r"\.\[([a-z,-]+)\]", text)) | set(re.findall(r"ENGINE_EXTRA=([a-z-]+)", text))
    assert named >= {"engine-cpu", "engine", "training"}
    assert named <= set(PROJECT["optional-dependencies"])


def test_every_setting_that_is_given_is_known() -> None:
    given = dict(re.findall(r"(HOTSWAP_[A-Z_]+)=(\S+)", "\n".join(instructions("ENV"))))
    assert {"HOTSWAP_STATE_DIR", "HOTSWAP_SERVER__HOST", "HOTSWAP_ENGINE__ENABLED"} == set(given)
    _, origin = load(environment=given)
    assert len(given) == sum(where.startswith("env ") for where in origin.values())


def test_no_image_runs_as_root() -> None:
    for target in ("gateway", "engine", "worker"):
        begin = next(i for i, line in enumerate(LINES) if line.endswith(f" AS {target}"))
        rest = LINES[begin + 1 :]
        end = next((i for i, line in enumerate(rest) if line.startswith("FROM ")), len(rest))
        assert "USER hotswap" in rest[:end]
