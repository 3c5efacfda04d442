"""Bad inputs, each refused in less than five seconds with its file, line and fix, by the real command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.training import light_base
from training.preflight.machine import Machine
from training.preflight.prices import Prices
from training.preflight.report import Report
from training.preflight.run import Asked, inspect
from training.recipe.resolve import Fleet
from training.rows import chat

LIMIT_S = 5.0
GOOD = tuple(json.dumps(chat(f"question {n}", f"answer {n % 7}")) for n in range(60))
"""Rows that pass, so that what is refused is the one thing that a case spoils."""


def with_line(line: str | bytes, at: int = 30) -> bytes:
    """The good rows with `line` in the place of line `at`."""
    lines = [row.encode() for row in GOOD]
    lines[at - 1] = line if isinstance(line, bytes) else line.encode()
    return b"\n".join(lines) + b"\n"


def lines(*rows: str) -> bytes:
    return b"\n".join(row.encode() for row in rows)


def turns(*given: tuple[str, str]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in given]})


@dataclass(frozen=True)
class Case:
    """`rows` is the file's content; `line` the line that must be named (None: the trouble has none), in the
    file `where`; `says` and `fix` are what the finding must hold."""

    name: str
    line: int | None
    says: str
    fix: str
    rows: bytes = lines(*GOOD)
    where: str = "rows.jsonl"
    recipe: str | None = None
    validation: bytes | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)


LONG = turns(("user", "word " * 600), ("assistant", "yes"))
CASES = (
    # lines that are no rows
    Case("cut JSON", 30, "is not JSON", "one JSON object a line", with_line('{"messages": [')),
    Case("a list", 30, "is a list", "write it as", with_line("[1, 2]")),
    Case("other keys", 30, "'input'", "rename its keys", with_line('{"input": "a", "output": "b"}')),
    Case("a lost answer", 30, "'completion' is missing", "fill it in", with_line('{"prompt": "Q"}')),
    Case(
        "a blank answer", 30, "blank text", "fill it in", with_line(turns(("user", "a"), ("assistant", " ")))
    ),
    Case("no answer", 30, "no assistant message", "add the answer", with_line(turns(("user", "a")))),
    Case("an unknown role", 30, "role 'human'", "known are", with_line(turns(("human", "a")))),
    Case(
        "a late system message",
        30,
        "is a system message",
        "move it there",
        with_line(turns(("user", "a"), ("system", "b"), ("assistant", "c"))),
    ),
    Case(
        "the assistant first",
        30,
        "before any user's",
        "put the user's message before",
        with_line(turns(("assistant", "a"), ("user", "b"), ("assistant", "c"))),
    ),
    Case(
        "two of one role in a row",
        30,
        "right after another",
        "merge the two",
        with_line(turns(("user", "a"), ("user", "b"), ("assistant", "c"))),
    ),
    Case("tool calls", 30, "'tools'", "leave it out", with_line(json.dumps(chat("a", "b") | {"tools": []}))),
    # text that is not whole
    Case("Windows-1252", 30, "is not UTF-8: byte 0xe9", "iconv", with_line(b'{"prompt": "caf\xe9"}')),
    Case("UTF-16", 1, "is UTF-16", "iconv", "\n".join(GOOD).encode("utf-16")),
    Case(
        "a lost character", 30, "U+FFFD", "in its own encoding", with_line(json.dumps(chat("a\ufffd", "b")))
    ),
    Case("half an emoji", 30, "surrogate", "write the whole", with_line(json.dumps(chat("a \ud83d", "b")))),
    Case("a NUL", 30, "U+0000", "remove it", with_line(json.dumps(chat("a\0", "b")))),
    # files of another kind
    Case("a JSON array", 1, "one JSON array", "jq -c", json.dumps([chat("a", "b")]).encode()),
    Case("a CSV", 1, "a table (CSV)", "as an object", b"prompt,completion\na,b\nc,d\n"),
    Case("an empty file", 1, "holds no rows", "write one JSON object a line", b"\n\n"),
    # rows that are fit to be read and not to be learned
    Case("too long for the base", 30, "tokens long", "shorten it by", with_line(LONG)),
    Case(
        "the base's control token",
        30,
        "control token <|im_end|>",
        "remove it",
        with_line(turns(("user", "a <|im_end|> b"), ("assistant", "c"))),
    ),
    Case("an answer of a dash", 30, "is only '-'", "drop the row", with_line(json.dumps(chat("a", "-")))),
    Case("a placeholder", 30, "'TODO'", "drop the row", with_line(json.dumps(chat("a", "TODO")))),
    Case(
        "one answer to everything",
        1,
        "every row has the answer",
        "add rows with the other answers",
        b"\n".join(json.dumps(chat(f"question {n}", "green")).encode() for n in range(60)),
    ),
    Case(
        "the same rows again", 31, "is line 1 again", "drop it", b"\n".join(r.encode() for r in GOOD[:30] * 2)
    ),
    Case(
        "three rows",
        None,
        "3 rows teach nothing",
        "into the prompt",
        b"\n".join(r.encode() for r in GOOD[:3]),
    ),
    Case(
        "validation rows that are trained on",
        2,
        "the same prompt is in the training rows",
        "take it out",
        where="held.jsonl",
        validation=(json.dumps(chat("new", "x")) + "\n" + GOOD[4]).encode(),
    ),
    # recipes
    Case(
        "an unknown key", 2, "'learning_rte'", "did you mean 'learning_rate'", recipe="\nlearning_rte = 1\n"
    ),
    Case("an impossible value", 1, "rank = 0", "leave it out", recipe="rank = 0\n"),
    Case("DoRA", 3, "do not serve DoRA", "rslora", recipe="rank = 8\nseed = 1\nuse_dora = true\n"),
    Case("aLoRA", 1, "aLoRA", "a plain adapter", recipe="alora_invocation_tokens = [1, 2]\n"),
    Case("PiSSA", 1, "changes the base's weights", 'init = "eva"', recipe='init = "pissa"\n'),
    Case("new words", 1, "new vocabulary", "tokens the base has", recipe='new_tokens = ["<x>"]\n'),
    Case("saved modules", 1, "whole modules", "rank 32", recipe='modules_to_save = ["lm_head"]\n'),
    Case("a bias", 2, "trained biases", "higher rank", recipe='seed = 3\nbias = "all"\n'),
    Case("full fine-tuning", 1, "a base of its own", "LoRA on every linear", recipe="full = true\n"),
    Case("a rank above the fleet's", 2, "serves up to 32", "rank = 32", recipe="\nrank = 128\n"),
    Case("no TOML", 2, "is not TOML", "`key = value`", recipe="rank = 8\nrank 9\n"),
    Case(
        "rewards without grpo", None, "`rewards` are grpo's", "leave them out", recipe='rewards = ["exact"]\n'
    ),
    # bases
    Case("no chat template", None, "has no chat template", "instruct model", base={"template": None}),
    Case(
        "a template that never ends an answer",
        None,
        "none of the tokens that stop generation",
        "eos_token_id",
        base={
            "template": "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
        },
    ),
    Case("a broken template", None, "broken at line 1", "mend", base={"template": "{% for %}"}),
    Case("a base in AWQ", None, "stored as awq", "plain bf16", base={"quantization": "awq"}),
)


@dataclass(frozen=True)
class Files:
    rows: Path
    base: Path
    recipe: str | None
    validation: Path | None


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return light_base.write(tmp_path_factory.mktemp("light") / "base")


@pytest.fixture
def put(tmp_path: Path, base: Path) -> Callable[[Case], Files]:
    """Writes a case's files."""

    def write(case: Case) -> Files:
        (tmp_path / "rows.jsonl").write_bytes(case.rows)
        if case.recipe is not None:
            (tmp_path / "recipe.toml").write_text(case.recipe)
        if case.validation is not None:
            (tmp_path / "held.jsonl").write_bytes(case.validation)
        return Files(
            tmp_path / "rows.jsonl",
            light_base.write(tmp_path / "base", **case.base) if case.base else base,
            None if case.recipe is None else str(tmp_path / "recipe.toml"),
            None if case.validation is None else tmp_path / "held.jsonl",
        )

    return write


def looked_at(files: Files, flags: dict[str, Any]) -> Report:
    fleet = Fleet(max_rank=32, max_tokens=512)
    return inspect(
        Asked("case", files.rows, files.base, fleet, files.recipe, flags, files.validation),
        Machine(None),
        Prices(),
    )[0]


def where(case: Case) -> str | None:
    if case.line is None:
        return None
    return "recipe.toml" if case.recipe is not None else case.where


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bad_input_is_refused_with_its_line_and_its_fix(case: Case, put: Callable[[Case], Files]) -> None:
    began = time.monotonic()
    report = looked_at(put(case), case.flags)
    took_s = time.monotonic() - began
    errors = [each for each in report.findings if each.severity == "error" and case.says in each.message]
    assert ("no", True) == (report.verdict, bool(errors)), report.findings
    assert (where(case), case.line, True) == (
        Path(errors[0].file).name if errors[0].file and case.line else None,
        errors[0].line,
        case.fix in errors[0].fix,
    ), errors[0]
    assert took_s < LIMIT_S


def test_the_rows_that_every_case_spoils_are_good(put: Callable[[Case], Files]) -> None:
    report = looked_at(put(Case("good", None, "", "")), {})
    assert ("go", []) == (report.verdict, [each for each in report.findings if each.severity != "note"])


@pytest.mark.parametrize("check", ["row", "too_long", "template"])
def test_what_could_not_be_trained_cannot_be_allowed(check: str, put: Callable[[Case], Files]) -> None:
    spoiled = with_line("{") if check == "row" else with_line(LONG)
    template = {"template": "{{ messages[0]['content'] }}"} if check == "template" else {}
    files = put(Case(check, None, "", "", rows=spoiled, base=template))
    fleet = Fleet(max_rank=32, max_tokens=512)
    asked = Asked("case", files.rows, files.base, fleet, allowed=(check,))
    assert "no" == inspect(asked, Machine(None), Prices())[0].verdict


def test_what_a_person_allows_is_a_warning(put: Callable[[Case], Files]) -> None:
    case = next(case for case in CASES if case.name == "one answer to everything")
    files = put(case)
    asked = Asked("case", files.rows, files.base, Fleet(32, 512), allowed=("same_answer",))
    assert "go with warnings" == inspect(asked, Machine(None), Prices())[0].verdict


def command(
    files: Files, state: Path, more: Sequence[str] = ()
) -> tuple[subprocess.CompletedProcess[str], float]:
    """The real command in a process of its own, and the seconds it took."""
    words = [
        sys.executable,
        "-m",
        "gateway.cli",
        "train",
        "case",
        "--data",
        str(files.rows),
        "--dry-run",
        *more,
    ]
    if files.recipe:
        words += ["--recipe", files.recipe]
    if files.validation:
        words += ["--validation", str(files.validation)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")}
    environment |= {"HOTSWAP_STATE_DIR": str(state), "HOTSWAP_BASE__PATH": str(files.base)}
    environment |= {"HOTSWAP_ENGINE__MAX_MODEL_LEN": "512"}
    began = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)
    return done, time.monotonic() - began


BY_COMMAND = (
    "cut JSON",
    "UTF-16",
    "too long for the base",
    "validation rows that are trained on",
    "an unknown key",
    "DoRA",
    "a rank above the fleet's",
    "a template that never ends an answer",
)


@pytest.mark.parametrize("name", BY_COMMAND)
def test_the_command_refuses_in_five_seconds_and_shows_line_and_fix(
    name: str, put: Callable[[Case], Files], tmp_path: Path
) -> None:
    case = next(case for case in CASES if case.name == name)
    done, took_s = command(put(case), tmp_path / "state")
    shown = next((line for line in done.stdout.splitlines() if case.says in line), "")
    place = "" if case.line is None else f"{where(case)}:{case.line}: "
    assert (1, True, True) == (done.returncode, place in shown, case.fix in shown), done.stdout + done.stderr
    assert took_s < LIMIT_S


def test_the_command_prints_what_a_program_can_read(put: Callable[[Case], Files], tmp_path: Path) -> None:
    case = CASES[0]
    done, _ = command(put(case), tmp_path / "state", ["--json"])
    report = json.loads(done.stdout)
    assert ("no", 30) == (report["verdict"], report["findings"][0]["line"])


def test_a_good_run_is_told_go_and_loads_neither_torch_nor_transformers(
    put: Callable[[Case], Files], tmp_path: Path
) -> None:
    files = put(Case("good", None, "", ""))
    code = (
        "import sys; from gateway.cli import main\n"
        f"sys.argv = ['hotswap', 'train', 'case', '--data', {str(files.rows)!r}, '--dry-run']\n"
        "try: main()\n"
        "except SystemExit as done: code = done.code\n"
        "print(code, sorted({'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)))"
    )
    environment = {**os.environ, "HOTSWAP_STATE_DIR": str(tmp_path), "HOTSWAP_BASE__PATH": str(files.base)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "0 []" == done.stdout.splitlines()[-1], done.stdout + done.stderr
    assert re.search(r"^verdict: go, in ", done.stdout, re.MULTILINE)


def test_ten_thousand_rows_take_less_than_five_seconds(put: Callable[[Case], Files], tmp_path: Path) -> None:
    rows = b"\n".join(
        json.dumps(chat(f"question {n} " + "and more of it " * 8, f"answer {n % 900}")).encode()
        for n in range(10_000)
    )
    done, took_s = command(put(Case("many", None, "", "", rows=rows)), tmp_path / "state")
    assert (0, True) == (done.returncode, took_s < LIMIT_S), (took_s, done.stdout)
