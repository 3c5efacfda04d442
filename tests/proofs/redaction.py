"""How much redaction finds, how much it takes by mistake, and what it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from gateway.traffic.redact import PATTERNS_VERSION, redact, redact_json
from gateway.traffic.redact.kinds import CHECKSUMMED
from tests.proofs import second_tier
from tests.proofs.result import Result
from tests.traffic.redact.adversarial import ADVERSARIAL
from tests.traffic.redact.score import Score, score
from tests.traffic.redact.synthetic import MAKERS, samples

SEEDS, EACH = (1, 2, 3, 4), 1000
BUDGET_US = 60.0
MEGABYTE = 1_000_000
SLOWEST_MB_S = 0.2
ORDINARY = (
    "Thanks for reaching out about the delay with your shipment. I looked at the notes from our team: the "
    "parcel left the depot on Tuesday at 09:30, and it should arrive within 3 to 5 working days. If it does "
    "not, please reply to this message and we will open a case with the carrier, which takes about 2 weeks. "
) * 4
PERSONAL = (
    "Write to ada@example.com or call +49 30 1234567; card 4111 1111 1111 1111, IBAN DE89 3704 0044 "
    "0532 0130 00, from 192.168.2.17. "
)


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "redaction",
        f"Redaction under `strict`, patterns of version {PATTERNS_VERSION}. Synthetic data of eight kinds, "
        f"{EACH:,} each, in sentences and in tool arguments, beside what only looks like it; "
        f"{len(SEEDS)} seeds. Found means replaced to the letter, with nothing around it gone. Generator and "
        "patterns are by the same hand: the figures compare versions, they do not promise the same in real "
        "traffic. The second tier is presidio, as the shipper uses it. Times are CPU time.",
    )
    scores = [score(samples(seed, EACH)) for seed in SEEDS]
    for kind in MAKERS:
        recall = min(one.recall(kind) for one in scores)
        precision = min(one.precision(kind) for one in scores)
        least = 0.99 if kind in CHECKSUMMED else 0.97
        checked = "checksummed" if kind in CHECKSUMMED else "by its looks"
        line = f"{kind} ({checked}): recall at least {least:.0%}, worst seed"
        result.must(line, recall >= least, f"{recall:.2%}")
        result.must(f"{kind}: precision at least 98%, worst seed", precision >= 0.98, f"{precision:.2%}")
    result.figure("samples a seed", _sizes(scores[0]))
    _speed(result)
    second_tier.prove(result, folder, ORDINARY)
    return result


def _speed(result: Result) -> None:
    text = ORDINARY[:1200]
    ordinary = _microseconds(lambda: redact(text))
    result.must(
        f"1.2 KB of ordinary text within {BUDGET_US:.0f} µs", ordinary <= BUDGET_US, f"{ordinary:.0f} µs"
    )
    personal = text[: 1200 - len(PERSONAL)] + PERSONAL
    result.figure(
        "1.2 KB with five pieces of personal data", f"{_microseconds(lambda: redact(personal)):.0f} µs"
    )
    body = {
        "messages": [{"role": "user", "content": text[:600]}],
        "choices": [{"message": {"role": "assistant", "content": text[600:]}, "finish_reason": "stop"}],
    }
    result.figure(
        "the same 1.2 KB in a body of two messages", f"{_microseconds(lambda: redact_json(body)):.0f} µs"
    )
    rates = {name: _rate(unit) for name, unit in ADVERSARIAL.items()}
    slowest = min(rates, key=rates.__getitem__)
    line = f"a megabyte made to choke it, at least {SLOWEST_MB_S} MB/s"
    result.must(line, rates[slowest] >= SLOWEST_MB_S, f"slowest: {slowest}, {rates[slowest]:.2f} MB/s")
    result.figure("such text, median", f"{statistics.median(rates.values()):.1f} MB/s of {len(rates)} sorts")


def _microseconds(call: Callable[[], object], calls: int = 400, repetitions: int = 9) -> float:
    times = []
    for _ in range(repetitions):
        begun = time.process_time()
        for _ in range(calls):
            call()
        times.append((time.process_time() - begun) / calls * 1e6)
    return statistics.median(times)


def _rate(unit: str) -> float:
    text = unit * (MEGABYTE // len(unit))
    begun = time.process_time()
    redact(text)
    return len(text) / 1e6 / max(time.process_time() - begun, 1e-6)


def _sizes(scored: Score) -> str:
    return f"{scored.planted.total():,} planted, {len(scored.missed):,} not as expected"
