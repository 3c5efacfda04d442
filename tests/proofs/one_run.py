"""One short training run in a process of its own, for `memory_estimate`: prints its peak and its stages.

    python -m tests.proofs.one_run BASE --rank 16 --batch 8 --tokens 128 [--steps 2]

Every row has `--tokens` tokens, so each step has batch x tokens of them, and the peak is that of a step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from training.preflight.chat import Chat
from training.recipe import Recipe
from training.rows import Message, Row, chat, write_rows
from training.run import train
from training.tokens import tokenise
from training.watch import Progress


def row_of(base: Path, tokens: int, learned: int, number: int) -> dict[str, Any]:
    """A row that the base's template renders to exactly `tokens` tokens, of which `learned` are learned: as
    many words less one, and the token that ends them."""
    reader = Chat.read(base)
    answer = " ".join(["yes"] * (learned - 1))

    def length(words: int) -> int:
        row = Row(1, (Message("user", question(words)), Message("assistant", answer, learn=True)))
        return len(tokenise(reader, row, set(reader.stops)).ids)

    def question(words: int) -> str:
        return f"{number:03d}" + " a" * words

    words = tokens - length(0)
    if words < 0 or length(words) != tokens:
        raise SystemExit(f"no row of {tokens} tokens: {words} words give {length(max(0, words))}")
    return chat(question(words), answer)


def peak() -> dict[str, int]:
    """Bytes that this process has, and had at most, resident: all, anonymous and of files."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmHWM", "VmRSS", "RssAnon", "RssFile"):
            found[name] = int(value.split()[0]) * 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.proofs.one_run", description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--learned", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--dropout", type=float, default=0.0)
    given = parser.parse_args()
    stages: list[dict[str, int]] = []

    def watch(progress: Progress) -> None:
        stages.append(peak())

    with tempfile.TemporaryDirectory(prefix="hotswap-run-") as folder:
        rows = Path(folder) / "rows.jsonl"
        write_rows(
            rows,
            [row_of(given.base, given.tokens, given.learned, n) for n in range(given.batch * given.steps)],
        )
        recipe = Recipe(
            rank=given.rank,
            alpha=2 * given.rank,
            batch_size=given.batch,
            max_steps=given.steps,
            max_tokens=given.tokens,
            gradient_checkpointing=given.checkpointing,
            dropout=given.dropout,
        )
        done = train(given.base, rows, recipe, Path(folder) / "out", watch)
    print(json.dumps({"peak": peak()["VmHWM"], "steps": stages, "seconds": done.seconds}))


if __name__ == "__main__":
    main()
