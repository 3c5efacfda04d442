"""How fast a step is, beside plain trl on the same rows; and that a validation does not spoil gradients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.proofs.result import Result, median
from training.banking77 import intents, training_rows
from training.rows import write_rows

NEEDS = "data"
ROUNDS = int(os.environ.get("TRAINING_SPEED_ROUNDS", "5"))
STEPS = int(os.environ.get("TRAINING_SPEED_STEPS", "30"))
ROWS_PER_INTENT = 26
PLAIN = Path(__file__).parents[2] / "docs" / "plain_sft.py"

OURS = """
import json, sys
from pathlib import Path
from training.recipe import Recipe
from training.run import train
base, rows, out, steps, seed = sys.argv[1:]
done = train(Path(base), Path(rows), Recipe(max_steps=int(steps), seed=int(seed)), Path(out), lambda _: None)
print(json.dumps({"seconds": done.seconds, "steps": done.steps, "learned_tokens": done.learned_tokens}))
"""

GRADIENTS = """
import json, sys
from pathlib import Path
import torch
from peft import LoraConfig, get_peft_model
from adapters.base.manifest import BaseManifest
from training.methods import sft
from training.methods.head import add_learned_head
from training.quantized import load
from training.recipe import Recipe
from training.rows import read_rows
from training.run import tokenizer_of
base, rows = map(Path, sys.argv[1:])
manifest = BaseManifest.read(base)
tokenizer, stops = tokenizer_of(base)
data = sft.prepare(tokenizer, read_rows(rows)[:8], stops, Recipe())
width = max(data.lengths)
ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in data.columns["input_ids"]])
labels = torch.tensor([row + [-100] * (width - len(row)) for row in data.columns["labels"]])
mask = torch.tensor([[1] * length + [0] * (width - length) for length in data.lengths])

def gradients(validated):
    torch.manual_seed(0)
    model = load(base, manifest)
    add_learned_head(model)
    model = get_peft_model(
        model, LoraConfig(r=16, target_modules=sorted(manifest.linears), init_lora_weights=False)
    )
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels, "learned_only": True}
    if validated:
        model.eval()
        with torch.no_grad():
            model(**given)
        model.state_dict()
    model.train()
    model(**given).loss.backward()
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]).float()

print(json.dumps(float(torch.nn.functional.cosine_similarity(gradients(False), gradients(True), dim=0))))
"""


def prove(folder: Path, base: Path, data: Path) -> Result:
    result = Result(
        "training_speed",
        f"`hotswap train` and docs/plain_sft.py (trl's own trainer) on rows of all 77 intents of BANKING77: "
        f"the same base in NF4, rows, learned tokens, rank 16, batch of 8, learning rate. {STEPS} steps a "
        f"run, {ROUNDS} rounds, taking turns, a process each. Gradient checkpointing, trl's default, saves "
        "memory at the price of a forward pass; it is measured with and without.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "rows.jsonl"
    write_rows(rows, training_rows(data, intents(data, 77), ROWS_PER_INTENT, seed=0))
    kinds = {
        "hotswap": [sys.executable, "-W", "ignore", "-c", OURS, str(base), str(rows)],
        "plain trl": [sys.executable, "-W", "ignore", str(PLAIN), str(base), str(rows)],
        "plain trl, checkpointing": [sys.executable, "-W", "ignore", str(PLAIN), str(base), str(rows)],
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(ROUNDS):
        for name in sorted(kinds, reverse=turn % 2 == 1):
            out = folder / f"{name.replace(' ', '-')}-{turn}"
            more = {
                "hotswap": [str(out), str(STEPS), str(turn)],
                "plain trl": [str(out), "--max-steps", str(STEPS), "--seed", str(turn)],
            }
            more["plain trl, checkpointing"] = [*more["plain trl"], "--checkpointing"]
            told = json.loads(_run([*kinds[name], *more[name]]))
            rates[name].append(told["steps"] / told["seconds"])
            print(f"  round {turn + 1} of {ROUNDS}, {name}: {rates[name][-1]:.3f} steps/s", flush=True)
    for name, found in rates.items():
        result.figure(
            f"{name}, steps a second", f"{median(found):.3f} ({min(found):.3f} to {max(found):.3f})"
        )
    for name in ("plain trl", "plain trl, checkpointing"):
        ratios = [ours / theirs for ours, theirs in zip(rates["hotswap"], rates[name], strict=True)]
        shown = f"x {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        if name == "plain trl":
            result.must(
                "steps a second >= 1.5 x plain trl's, both without checkpointing",
                median(ratios) >= 1.5,
                shown,
            )
        else:
            result.figure("against trl's default, with checkpointing", shown)
    cosine = json.loads(_run([sys.executable, "-W", "ignore", "-c", GRADIENTS, str(base), str(rows)]))
    result.must(
        "gradients after a validation: cosine >= 0.999 with a fresh model's", cosine >= 0.999, f"{cosine:.6f}"
    )
    return result


def _run(words: list[str]) -> str:
    """The last line that the child prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise AssertionError(f"{words[1:4]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1]
