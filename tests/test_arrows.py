"""Dependencies point one way (docs/architecture.md), read from the source with `ast`.

`ALLOWED` says what each room may import of ours. An import inside a function counts too, except that the
command line may reach for `training` and `loadtests` in the verbs that use them; heavy third parties may be
imported inside functions only where `HEAVY_INSIDE` says so.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "adapters", "training", "loadtests")
LONGEST, LONGEST_TEST = 400, 600
"""Lines. A test module mirrors a module of ours, one behaviour a test, and so may be longer."""

HEAVY = frozenset({"torch", "vllm", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate"})
GATEWAY_SHARED = frozenset({"gateway.errors", "gateway.requestid", "gateway.settings", "adapters"})

ALLOWED: Mapping[str, frozenset[str]] = {
    "adapters.vllm_plugin": frozenset({"adapters"}),
    "adapters": frozenset({"adapters"}),
    "training": frozenset({"training", "adapters"}),
    "loadtests": frozenset({"loadtests", "adapters"}),
    # It simulates the product's own placement: a copy would prove nothing.
    "loadtests.placement": frozenset({"loadtests", "adapters", "gateway.fleet.placement"}),
    "gateway.errors": frozenset(),
    "gateway.requestid": frozenset(),
    "gateway.section": frozenset(),
    "gateway.training_settings": frozenset({"gateway.section"}),
    "gateway.settings": frozenset({"gateway.section", "gateway.training_settings"}),
    "gateway.supervise": GATEWAY_SHARED,
    "gateway.db": GATEWAY_SHARED | {"gateway.supervise"},
    "gateway.access": GATEWAY_SHARED | {"gateway.db", "gateway.supervise"},
    "gateway.rollout": GATEWAY_SHARED | {"gateway.db"},
    "gateway.fleet": GATEWAY_SHARED | {"gateway.db", "gateway.supervise"},
    "gateway.relay": GATEWAY_SHARED | {"gateway.fleet"},
    "gateway.telemetry": frozenset(),
    "gateway.datasets": GATEWAY_SHARED | {"gateway.db"},
    "gateway.traffic": GATEWAY_SHARED | {"gateway.db", "gateway.supervise", "gateway.datasets"},
    "gateway.files": GATEWAY_SHARED | {"gateway.db"},
    "gateway.jobs": GATEWAY_SHARED | {"gateway.db", "gateway.files", "gateway.supervise"},
    "gateway.retraining": GATEWAY_SHARED | {"gateway.db", "gateway.jobs", "gateway.traffic"},
    "gateway.api": GATEWAY_SHARED
    | {"gateway.access", "gateway.rollout", "gateway.fleet", "gateway.relay", "gateway.telemetry"}
    | {"gateway.db", "gateway.traffic", "gateway.datasets", "gateway.files", "gateway.jobs"}
    | {"gateway.retraining"},
    # The composition root and what runs it.
    "gateway.app": frozenset({"gateway", "adapters"}),
    "gateway.serve": frozenset({"gateway", "adapters"}),
    "gateway.workers": frozenset({"gateway", "adapters"}),
    "gateway.worker": frozenset({"gateway", "adapters"}),
    "gateway.cli": frozenset({"gateway", "adapters", "training", "loadtests"}),
}
"""Longest prefix wins. A room may always import itself."""

REACHES: Mapping[str, tuple[str, ...]] = {
    "training": (
        "gateway.cli.train",
        "gateway.cli.eval",
        "gateway.cli.export",
        "gateway.cli.prove",
        "gateway.cli.demo",
        "gateway.cli.demo_loop",
        "gateway.cli.recipes",
        "gateway.cli.fleet_limits",
        "gateway.cli.datasets",
    ),
    "loadtests": ("gateway.cli.bench",),
}
"""The only modules outside these packages that may import them, and only inside a function."""

HEAVY_INSIDE = ("adapters.base", "adapters.vllm_plugin", "training", "gateway.cli.train", "gateway.cli.demo")
"""Rooms that may import torch and its kin inside functions."""

HEAVY_AT_TOP = ("adapters.vllm_plugin", "training")
"""Rooms that may import them at module level: they run in the engine or in the worker only."""


@dataclass(frozen=True)
class Import:
    """`module` (dotted, ours) imports `target` (dotted), `inside` a function or at module level."""

    module: str
    target: str
    inside: bool
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}{' inside a function' if self.inside else ''}"


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(module: str, source: str, package: str | None = None) -> Iterator[Import]:
    """Every import in `source`. One for type checkers only never runs, so it counts as inside a function."""

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Import(names=names):
                    for alias in names:
                        yield Import(module, alias.name, inside, child.lineno)
                case ast.ImportFrom(module=target, level=level, names=names):
                    origin = target or ""
                    if level:
                        parents = (package or module).split(".")
                        origin = ".".join([*parents[: len(parents) - level + 1], *filter(None, [target])])
                    for alias in names:
                        yield Import(module, f"{origin}.{alias.name}", inside, child.lineno)
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                    yield from visit(child, True)
                case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body):
                    for statement in body:
                        yield from visit(ast.Module([statement], []), True)
                case _:
                    yield from visit(child, inside)

    yield from visit(ast.parse(source), False)


def every_import() -> Iterator[Import]:
    for module, path in modules():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        yield from imports(module, path.read_text(), package)


def under(module: str, prefixes: frozenset[str] | tuple[str, ...]) -> str | None:
    """The longest of `prefixes` that `module` is or lives in."""
    return max((p for p in prefixes if module == p or module.startswith(f"{p}.")), key=len, default=None)


def wrong(found: Import) -> str | None:
    """Why this import breaks an arrow, or None."""
    ours = under(found.target, PACKAGES)
    if ours is None:
        if under(found.target, tuple(HEAVY)) is None or under(found.module, HEAVY_AT_TOP):
            return None
        if found.inside and under(found.module, HEAVY_INSIDE):
            return None
        return f"{found}: only {', '.join(HEAVY_INSIDE)} may, inside a function"
    room = under(found.module, tuple(ALLOWED))
    if room is None:
        if found.module in ("gateway",):
            return None
        return f"{found}: {found.module} is in no room; name it in ALLOWED and in docs/architecture.md"
    if ours in REACHES and found.module.startswith("gateway."):
        if under(found.module, REACHES[ours]) and found.inside:
            return None
        return f"{found}: only {', '.join(REACHES[ours])} may, inside a function"
    if under(found.target, ALLOWED[room] | {room}):
        return None
    return f"{found}: {room} may import {', '.join(sorted(ALLOWED[room])) or 'nothing of ours'}"


def test_dependencies_point_one_way() -> None:
    assert [] == [why for found in every_import() if (why := wrong(found))]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gateway.relay.upstream", "from gateway.api import openai"),
        ("gateway.db.database", "from gateway.fleet import Fleet"),
        ("gateway.access.keys", "import gateway.rollout"),
        ("gateway.api.openai", "from gateway.supervise import Child"),
        ("gateway.rollout.routes", "from gateway.fleet.fleet import Fleet"),
        ("gateway.errors", "import gateway.settings"),
        ("gateway.fleet.fleet", "import torch"),
        ("gateway.fleet.fleet", "def f():\n    from vllm import LLM"),
        ("gateway.cli.ps", "def f():\n    import training"),
        ("gateway.cli.train", "from training.run import train"),
        ("gateway.cli.ps", "if TYPE_CHECKING:\n    from training.watch import Progress"),
        ("gateway.relay.upstream", "if TYPE_CHECKING:\n    from gateway.api import openai"),
        ("gateway.unheard_of.room", "import gateway.errors"),
        ("adapters.store", "from gateway.settings import Settings"),
        ("adapters.registry", "def f():\n    import training.run"),
        ("adapters.store", "import transformers"),
        ("adapters.vllm_plugin.kernel", "from gateway import errors"),
        ("training.run", "from gateway.settings import Settings"),
        ("loadtests.drive", "import training"),
        ("loadtests.drive", "from gateway.fleet import fake_engine"),
        ("gateway.cli.bench.run", "from loadtests.run import run"),
        ("gateway.api.openai", "def f():\n    import loadtests.plan"),
    ],
)
def test_an_arrow_against_the_grain_is_noticed(module: str, source: str) -> None:
    assert 1 == len([why for found in imports(module, source) if (why := wrong(found))])


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gateway.cli.train", "def f():\n    from training.run import train"),
        ("gateway.cli.train", "if TYPE_CHECKING:\n    from training.watch import Progress"),
        ("gateway.api.openai", "from gateway.relay import Transfer"),
        ("gateway.cli.bench.run", "def f():\n    from loadtests.run import run"),
        ("adapters.base.prepare", "def f():\n    import torch"),
        ("adapters.vllm_plugin.kernel", "import torch"),
        ("training.run", "from adapters.base.manifest import BaseManifest"),
    ],
)
def test_an_arrow_with_the_grain_is_let_through(module: str, source: str) -> None:
    assert [] == [why for found in imports(module, source) if (why := wrong(found))]


def test_a_relative_import_is_read_as_the_absolute_one() -> None:
    (found,) = imports("gateway.relay.upstream", "from ..api import openai", "gateway.relay")
    assert "gateway.api.openai" == found.target


@pytest.mark.parametrize(
    "statement",
    [
        "import gateway.app",
        "import gateway.cli.commands",
        "import adapters.preflight, adapters.registry",
        # A dry run has five seconds.
        "import training.preflight.run, training.preflight.baseline",
    ],
)
def test_the_gateway_starts_without_torch_or_vllm(statement: str) -> None:
    program = f"import sys; {statement}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (0, "") == (answer.returncode, answer.stdout.strip()), answer.stderr


def test_every_room_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for _, path in modules()
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert [] == silent


def test_no_file_is_longer_than_two_nouns() -> None:
    limits = {path: LONGEST for _, path in modules()}
    limits |= dict.fromkeys((ROOT / "tests").rglob("*.py"), LONGEST_TEST)
    lengths = {path: len(path.read_text().splitlines()) for path in limits}
    assert [] == [f"{path}: {lengths[path]}" for path, limit in limits.items() if lengths[path] > limit]
