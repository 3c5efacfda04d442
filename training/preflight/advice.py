"""Should this be a fine-tune, a prompt, or retrieval? An honest answer from the rows, with its grounds.

The signals are counted, not judged by a model: how often an answer holds a fact that stands neither in its
prompt nor in other answers (it could only be learned by heart), how alike answers are in form, how many
distinct ones there are, how much of an answer is copied from its prompt. The rules are rules of thumb.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from training.preflight.dataset import answer, prompt
from training.rows import Row

FEW, VISIBLE = 50, 300
LOOKUP, HALF = 0.4, 0.5
SOLVED = 0.9
"""Share of held-out rows that a few-shot prompt answers exactly, from which it does what training would."""

_FACT = re.compile(
    r"https?://\S+|[\w.+-]+@[\w-]+\.\w+|\b\d[\d.,:/-]*\b|(?<=[a-z,;] )[A-Z][\w-]+(?: [A-Z][\w-]+)*"
)
"""What is looked up rather than worded: addresses, numbers and dates, names in the middle of a sentence."""

_RULES = {
    "rows": "several hundred good examples for a visible change, several thousand for a robust one",
    "prompt first": "prompt first; a fine-tune for behaviour, format, vocabulary, cost at volume",
    "retrieval": "retrieval for knowledge, above all where it changes; a fine-tune learns how to answer",
    "both": "combine them when both are needed",
    "form": "a fine-tune for behaviour, format, vocabulary, cost at volume",
}


@dataclass(frozen=True, slots=True)
class Signals:
    """Shares of rows, between 0 and 1, and counts.

    `lookup`: the answer has a fact of its own; `form`: it has the commonest form (the same JSON keys, or the
    same skeleton of characters); `labels`: it is one of few that recur; `copied`: mean share of its words
    that stand in the prompt. `distinct` answers. `instruction_characters` are of a system message that
    most rows share.
    """

    rows: int
    lookup: float
    form: float
    labels: float
    copied: float
    distinct: int
    instruction_characters: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """The base with examples in its prompt: `right` of `asked` held-out rows, exactly."""

    right: int
    asked: int
    shots: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Advice:
    """`choice` is fine-tune, prompt, retrieval, or "retrieval and fine-tune"; `grounds` are (what, rule)."""

    choice: str
    grounds: tuple[tuple[str, str], ...]
    signals: Signals
    baseline: Baseline | None = None

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"advice: {self.choice}"
        for ground, rule in self.grounds:
            yield f"  - {ground}" + (f"  [rule of thumb: {rule}]" if rule else "")


def advise(rows: Sequence[Row], baseline: Baseline | None = None) -> Advice:
    """What the rows, and the few-shot `baseline` where there is one, speak for."""
    signals = measure(rows)
    grounds: list[tuple[str, str]] = []
    lookup = signals.lookup >= LOOKUP and signals.labels < HALF
    formed = max(signals.form, signals.labels) >= HALF
    if lookup:
        grounds.append(
            (
                f"{signals.lookup:.0%} of the answers hold a fact (a number, name, address) that is neither "
                "in their prompt nor in other answers: it would be learned by heart, or made up",
                _RULES["retrieval"],
            )
        )
    grounds += _of_form(signals)
    if signals.rows < VISIBLE:
        grounds.append((f"{signals.rows:,} rows", _RULES["rows"]))
    if baseline is not None and baseline.asked:
        grounds.append(_of_baseline(baseline))
    if signals.instruction_characters > 400:
        grounds.append(
            (
                f"every request carries the same {signals.instruction_characters:,} characters of "
                "instruction, which a fine-tune can do without",
                _RULES["form"],
            )
        )
    solved = baseline is not None and baseline.asked >= 4 and baseline.right >= SOLVED * baseline.asked
    if lookup:
        choice = "retrieval and fine-tune" if formed and signals.rows >= FEW else "retrieval"
    elif solved or signals.rows < FEW:
        choice = "prompt"
    else:
        choice = "fine-tune"
    if choice == "fine-tune" and baseline is None:
        grounds.append(
            ("a few-shot prompt was not tried; with the gateway up: --baseline 40", _RULES["prompt first"])
        )
    return Advice(choice, tuple(grounds), signals, baseline)


def measure(rows: Sequence[Row]) -> Signals:
    """The signals of rows, at least one."""
    answers = [answer(row).strip() for row in rows]
    prompts = [" ".join(text for _, text in prompt(row)) for row in rows]
    counts = Counter(answers)
    facts = [set(_FACT.findall(text)) for text in answers]
    seen = Counter(fact for each in facts for fact in each)
    lonely = sum(
        any(seen[fact] == 1 and fact not in asked for fact in each)
        for each, asked in zip(facts, prompts, strict=True)
    )
    forms = Counter(map(_form, answers))
    systems = Counter(row.messages[0].content for row in rows if row.messages[0].role == "system")
    common, times = systems.most_common(1)[0] if systems else ("", 0)
    return Signals(
        rows=len(rows),
        lookup=lonely / len(rows),
        form=forms.most_common(1)[0][1] / len(rows),
        labels=sum(n for n in counts.values() if n > 1) / len(rows),
        copied=sum(map(_copied, answers, prompts)) / len(rows),
        distinct=len(counts),
        instruction_characters=len(common) if times > HALF * len(rows) else 0,
    )


def _of_form(signals: Signals) -> list[tuple[str, str]]:
    if signals.labels >= HALF:
        return [
            (
                f"{signals.distinct:,} distinct answers to {signals.rows:,} prompts: a closed set of labels",
                _RULES["form"],
            )
        ]
    if signals.form >= HALF:
        return [(f"{signals.form:.0%} of the answers have one form", _RULES["form"])]
    if signals.copied >= 0.7:
        return [
            (f"{signals.copied:.0%} of an answer's words stand in its prompt: an extraction", _RULES["form"])
        ]
    return []


def _of_baseline(baseline: Baseline) -> tuple[str, str]:
    share = f"{baseline.right} of {baseline.asked} held-out rows"
    if baseline.right >= SOLVED * baseline.asked:
        return (
            f"the base with {baseline.shots} examples in its prompt answers {share} exactly: it can do it, "
            "and a fine-tune would save the examples' tokens only",
            _RULES["prompt first"],
        )
    return (
        f"the base with {baseline.shots} examples in its prompt answers {share} exactly",
        _RULES["prompt first"],
    )


def _form(text: str) -> str:
    """The form of an answer: its JSON keys, else its characters by kind, runs of a kind as one."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return "json " + " ".join(sorted(map(str, value)))
    kinds = re.sub(r"[^\W\d_]+", "a", text)
    kinds = re.sub(r"\d+", "0", kinds)
    kinds = re.sub(r"a(?:[ ,'-]+a)+", "a", kinds)
    # Plain words have no form; they would make any two short sentences alike.
    return kinds if re.search(r"[^a.!?\s]", kinds) else text


def _copied(said: str, asked: str) -> float:
    words = re.findall(r"\w+", said.casefold())
    known = set(re.findall(r"\w+", asked.casefold()))
    return sum(word in known for word in words) / len(words) if words else 0.0
