"""From a registered version to its report card: measure what the gates judge, through the gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base.manifest import BaseManifest
from training import gates, tensors
from training.ask import ask_all
from training.evaluation.arms import Arm, evaluate, fitting, gain, questions
from training.gates import Finding, ReportCard
from training.parity import compare, peft_logs, probes, served_logs, served_prompt_ids
from training.recipe import TrainingError
from training.rows import Row

RECITED = 64
"""Questions of each kind that are begun, to see whether they are ended."""
LEAST_WORDS = 8
"""A question of fewer words has no half that says anything."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be proved, and by what.

    `version` is as the gateway names it; `folder` holds the adapter as it was trained; `stable` is what it
    would replace, a version or the base. `learned` are the rows that it was trained on, `held_out` others.
    `general` are rows of what it must not forget; without any that gate is not on the card.
    """

    version: str
    folder: Path
    stable: str
    learned: tuple[Row, ...]
    held_out: tuple[Row, ...]
    general: tuple[Row, ...] = ()


async def prove(
    candidate: Candidate,
    base: Path,
    url: str,
    key: str,
    *,
    claimed: str,
    say: Callable[[str], None] = lambda _: None,
    max_tokens: int = 256,
) -> ReportCard:
    """Every gate's finding. `url` ends in /v1; `claimed` is the base's fingerprint in the adapter's lineage.

    Raises `TrainingError` when something cannot be measured: no finding is no pass.
    """
    if not candidate.held_out:
        raise TrainingError("there are no held-out rows to judge by; split some off the data first")
    manifest = BaseManifest.read(base)
    say("comparing what is served with what was trained")
    findings = [gates.base(claimed, manifest.fingerprint)]
    findings += await _served_as_trained(candidate, base, manifest.name, url, key)
    findings += await same_tensors(candidate, url, key, say)
    say("asking held-out questions")
    findings += await _better(candidate, url, key, max_tokens)
    findings.append(gates.leakage(_shared(candidate.learned, candidate.held_out), len(candidate.held_out)))
    say("looking for what it learned by heart")
    recited = [
        await _recited(rows, candidate.version, url, key) for rows in (candidate.learned, candidate.held_out)
    ]
    findings.append(gates.memorised(*recited))
    return ReportCard(candidate.version, tuple(findings))


async def _served_as_trained(
    candidate: Candidate, base: Path, base_name: str, url: str, key: str
) -> list[Finding]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    asked = probes(tokenizer, candidate.held_out)
    question = [message.as_dict() for message in _question(candidate.held_out[0])]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    ours = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    theirs = await served_prompt_ids(url, key, candidate.version, question)
    served = await served_logs(url, key, base_name, candidate.version, asked)
    found = compare(peft_logs(base, candidate.folder, asked), served)
    return [gates.template(ours, theirs), gates.same_base(found), gates.parity(found), gates.effect(found)]


async def same_tensors(candidate: Candidate, url: str, key: str, say: Callable[[str], None]) -> list[Finding]:
    """The finding of the gate `tensors`; none where no engine can tell: without our plugin, or where tensors
    lie in parts on many devices. Raises `TrainingError` when one that could tell does not.
    """
    told = await tensors.served(url, key, candidate.version)
    for engine, answer in told.items():
        if "problem" in answer:
            say(f"engine {engine} does not tell its tensors: {answer['problem']}")
    told = {engine: answer for engine, answer in told.items() if "problem" not in answer}
    ours = {
        dtype: tensors.trained(candidate.folder, dtype) for dtype in {each["dtype"] for each in told.values()}
    }
    others = {
        engine: tensors.others(ours[answer["dtype"]], answer["tensors"]) for engine, answer in told.items()
    }
    return [gates.tensors(others, 2 * max(map(len, ours.values())))] if told else []


async def _better(candidate: Candidate, url: str, key: str, max_tokens: int) -> list[Finding]:
    arms = [Arm(name, url, key, name) for name in (candidate.version, candidate.stable)]
    asked = questions(candidate.held_out)
    metrics = fitting(asked)
    new, old = await evaluate(asked, arms, metrics, max_tokens=max_tokens, unremembered=True)
    findings = [gates.task_gain(gain(new, old, metrics[0]), metrics[0], candidate.stable)]
    if "json_valid" in metrics:
        findings.append(gates.schema(*(each.interval("json_valid").mean for each in (new, old))))
    if candidate.general:
        new, old = await evaluate(questions(candidate.general), arms, ["rouge_l"], max_tokens=max_tokens)
        findings.append(gates.general(gain(new, old, "rouge_l"), candidate.stable))
    return findings


def _shared(learned: Sequence[Row], held_out: Sequence[Row]) -> int:
    seen = {_key(row) for row in learned}
    return sum(_key(row) in seen for row in held_out)


def _key(row: Row) -> tuple[tuple[str, str], ...]:
    """What is asked, but for case and white space."""
    return tuple((message.role, " ".join(message.content.lower().split())) for message in _question(row))


def _question(row: Row) -> tuple[Any, ...]:
    last = max((at for at, message in enumerate(row.messages) if message.learn), default=len(row.messages))
    return row.messages[:last]


async def _recited(rows: Sequence[Row], model: str, url: str, key: str) -> float:
    """The share of questions whose second half, word for word, the model writes to the first."""
    halves = []
    for row in rows:
        words = " ".join(message.content for message in _question(row) if message.role == "user").split()
        if len(words) >= LEAST_WORDS:
            halves.append((words[: len(words) // 2], words[len(words) // 2 :]))
    halves = halves[:RECITED]
    if not halves:
        return 0.0
    answers = await ask_all(
        [[{"role": "user", "content": " ".join(first)}] for first, _ in halves],
        url=url,
        key=key,
        model=model,
        max_tokens=64,
        unremembered=True,
    )
    recited = sum(
        " ".join(second) in " ".join(answer.text.split())
        for (_, second), answer in zip(halves, answers, strict=True)
    )
    return recited / len(halves)
