"""What the second tier finds that the first does not, what it takes by mistake, and what it costs.

A part of the proof of redaction. PIPELINE=… names a trained spaCy pipeline whose speed is shown, too.
"""

from __future__ import annotations

import json
import os
import random
import string
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.traffic.redact import redact, redact_json
from gateway.traffic.row import Row, row_of
from gateway.traffic.second import Examining, SecondTier
from gateway.traffic.texts import Rewrite, rewritten
from tests.proofs.result import Result
from tests.traffic.pipelines import NAMES, pipeline
from tests.traffic.records import record
from tests.traffic.redact.lookalikes import LOOKALIKES

EACH = 500
ROWS = 300
SLOWEST_ROWS_S = 50.0
LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def prove(result: Result, folder: Path, ordinary: str) -> None:
    """Adds its lines to `result`. `ordinary` is text without anything personal in it."""
    second = SecondTier(Examining(("en", "es"), {"en": pipeline(folder / "names")}))
    rewrite = second.load()
    dice = random.Random(1)
    for kind, (name, sentences, make) in PAPERS.items():
        texts = [(sentence, make(dice)) for _ in range(EACH) for sentence in [dice.choice(sentences)]]
        first = sum(value not in redact(sentence.format(value))[0] for sentence, value in texts)
        found = sum(rewrite(s.format(value), "") == s.format(f"[{kind}]") for s, value in texts)
        result.must(
            f"second tier, {kind} in a sentence: recall at least 95%",
            found >= 0.95 * EACH,
            f"{found / EACH:.1%} (first tier alone: {first / EACH:.1%})",
        )
        arguments = [json.dumps({name: make(dice)}) for _ in range(EACH)]
        found = sum(_second(rewrite, text) == json.dumps({name: f"[{kind}]"}) for text in arguments)
        line = f"second tier, {kind} as a tool's argument: recall at least 95%"
        result.must(line, found >= 0.95 * EACH, f"{found / EACH:.1%}")
    looks = [f"It is {make(dice)} here" for make in LOOKALIKES for _ in range(50)]
    wrong = sum(rewrite(text, "") != text for text in looks)
    line = "second tier: of what only looks like it, at most 1% is taken"
    result.must(line, wrong <= 0.01 * len(looks), f"{wrong} of {len(looks):,}")
    rows = [_row(number, ordinary) for number in range(ROWS)]
    rate = _rate(second, rows)
    line = f"second tier: at least {SLOWEST_ROWS_S:.0f} rows of 1.6 KB a second of CPU time"
    result.must(line, rate >= SLOWEST_ROWS_S, f"{rate:.0f} (two languages, no trained pipeline)")
    more = (_peak_kib("SecondTier(Examining()).load()") - _peak_kib("")) / 1024
    result.figure("second tier: memory", f"{more:.0f} MB more, and what pipelines take")
    if trained := os.environ.get("PIPELINE"):
        named = SecondTier(Examining(models={"en": trained}))
        named.load()
        result.figure("second tier: rows a second, trained English pipeline", f"{_rate(named, rows):.0f}")


def _second(rewrite: Rewrite, arguments: str) -> str:
    """Both tiers, one after the other, of a tool's arguments."""
    clean = redact_json({"arguments": arguments})[0]
    return str(rewritten(clean, rewrite)["arguments"])


def _peak_kib(statement: str) -> int:
    """The most memory that a process took which executed this."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from gateway.traffic.second import Examining, SecondTier\n"
        f"{statement}\n"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)


def _rate(second: SecondTier, rows: list[Row]) -> float:
    begun = time.process_time()
    for row in rows:
        second(row)
    return len(rows) / (time.process_time() - begun)


def _row(number: int, ordinary: str) -> Row:
    """The system prompt is the same in each, all else is new."""
    words = ordinary.split()
    random.Random(number).shuffle(words)
    said = " ".join(words)
    messages = [{"role": "system", "content": ordinary[:600]}, {"role": "user", "content": said[:400]}]
    answer = {"choices": [{"message": {"role": "assistant", "content": said[400:1000]}}]}
    request = json.dumps({"model": "support", "messages": messages}).encode()
    return row_of(record(number, redacted=True, request=request, answer=json.dumps(answer).encode()))


def _ssn(dice: random.Random) -> str:
    area = dice.choice([*range(101, 666), *range(667, 899)])
    return f"{area}-{dice.randint(1, 99):02d}-{dice.randint(1000, 9999)}"


def _itin(dice: random.Random) -> str:
    return f"9{dice.randint(10, 99)}-{dice.randint(70, 88)}-{dice.randint(1000, 9999)}"


def _passport(dice: random.Random) -> str:
    return str(dice.randint(200_000_000, 699_999_999))


def _nino(dice: random.Random) -> str:
    letters = [*"CEGHJLMPRSWXY"]
    return f"{dice.choice(letters)}{dice.choice(letters)}{dice.randint(100000, 999999)}{dice.choice('ABCD')}"


def _nif(dice: random.Random) -> str:
    number = dice.randint(10_000_000, 99_999_999)
    return f"{number}{LETTERS[number % 23]}"


def _license(dice: random.Random) -> str:
    return dice.choice(string.ascii_uppercase) + str(dice.randint(1_000_000, 9_999_999))


def _name(dice: random.Random) -> str:
    return dice.choice(NAMES)


PAPERS: dict[str, tuple[str, tuple[str, ...], Callable[[random.Random], str]]] = {
    "US_SSN": ("ssn", ("My SSN is {}.", "Take {} for this", "social security number: {}"), _ssn),
    "US_ITIN": ("itin", ("My ITIN is {}.", "my taxpayer number {}, thanks"), _itin),
    "US_PASSPORT": ("passport_number", ("My passport number is {}.", "(passport {})"), _passport),
    "UK_NINO": ("national_insurance", ("My NI number is {}.", "Take {} for this"), _nino),
    "ES_NIF": ("nif", ("Mi NIF es {}.", "Aquí está: {}, gracias"), _nif),
    "US_DRIVER_LICENSE": ("driver_license", ("my driver license is {}.", "license number {}"), _license),
    "PERSON": ("name", ("It is {} here.", "Ask {}, please", "- {}\n- nobody"), _name),
}
"""By entity: a member's name that tells it, sentences, and what makes one. Persons are those that the tests'
pipeline has rules for: that shows the way through a pipeline, not how well a trained one does."""
