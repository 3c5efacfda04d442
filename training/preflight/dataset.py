"""The rows together: repeated, contradicting, all alike, too few, or known to the validation rows already."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

from training.preflight.findings import Finding, Severity, error, note, warning
from training.rows import Row

FEWEST, FEW, VISIBLE = 10, 50, 300
"""Below the first nothing is learned, below the second little; from the third on a change is visible."""
MANY_REPEATED = 0.2
"""Share of rows from which repetition is no slip any more."""
SOURCE = "[rules: several hundred good examples for a visible change, several thousand for a robust one]"

_PLACEHOLDERS = frozenset({"todo", "tbd", "null", "nan", "undefined", "xxx", "lorem ipsum", "fixme"})
Key = tuple[tuple[str, str], ...]


def look(rows: Sequence[Row], file: str) -> Iterator[Finding]:
    """Findings on the training rows."""
    yield from _few(rows, file)
    yield from _repeated(rows, file)
    yield from _answers(rows, file)


def control_tokens(rows: Sequence[Row], specials: Collection[str], file: str) -> Iterator[Finding]:
    """Text that holds a control token of the base would end a turn in its middle."""
    if not specials:
        return
    found = re.compile("|".join(re.escape(text) for text in sorted(specials)))
    for row in rows:
        for at, message in enumerate(row.messages):
            if match := found.search(message.content):
                yield error(
                    "control_token",
                    f"messages[{at}] has the base's control token {match[0]}",
                    "remove it: the chat template writes it itself"
                    if message.role == "assistant"
                    else "remove it, or write it in other characters: it would end the turn",
                    file,
                    row.line,
                )
                break


def leaks(rows: Sequence[Row], file: str, validation: Sequence[Row], other: str) -> Iterator[Finding]:
    """Validation rows whose prompt is in the training rows, but for case and white space."""
    known = {_plain(prompt(row)): row.line for row in rows}
    for row in validation:
        line = known.get(_plain(prompt(row)))
        if line is not None:
            yield error(
                "leakage",
                f"the same prompt is in the training rows ({file}:{line})",
                "take it out of one of the two: a score on it measures memory",
                other,
                row.line,
            )


def prompt(row: Row) -> Key:
    """All that stands before the last answer that is learned."""
    last = max(at for at, message in enumerate(row.messages) if message.learn)
    return tuple((message.role, message.content) for message in row.messages[:last])


def answer(row: Row) -> str:
    """The last answer that is learned."""
    return next(message.content for message in reversed(row.messages) if message.learn)


def _few(rows: Sequence[Row], file: str) -> Iterator[Finding]:
    count = len(rows)
    if 0 < count < FEWEST:
        yield error(
            "few_rows",
            f"{count} rows teach nothing that lasts {SOURCE}",
            f"collect at least {FEW}, better {VISIBLE}; until then put them into the prompt as examples",
            file,
        )
    elif count < FEW:
        yield warning(
            "few_rows",
            f"{count} rows are little {SOURCE}",
            f"collect {VISIBLE}, or try them as examples in the prompt first",
            file,
        )
    elif count < VISIBLE:
        yield note("few_rows", f"{count} rows; a visible change takes several hundred {SOURCE}", file)


def _repeated(rows: Sequence[Row], file: str) -> Iterator[Finding]:
    first: dict[Key, int] = {}
    answers: dict[Key, dict[str, int]] = defaultdict(dict)
    repeated: list[tuple[int, int]] = []
    for row in rows:
        whole = tuple((message.role, message.content) for message in row.messages)
        if whole in first:
            repeated.append((row.line, first[whole]))
            continue
        first[whole] = row.line
        answers[_plain(prompt(row))].setdefault(answer(row).strip(), row.line)
    severity = Severity.ERROR if len(repeated) > MANY_REPEATED * len(rows) else Severity.WARNING
    for line, original in repeated:
        yield Finding(
            "duplicates",
            severity,
            f"is line {original} again",
            "drop it: a row that is learned twice as often is learned by heart",
            file,
            line,
        )
    split = [lines for lines in answers.values() if len(lines) > 1]
    severity = Severity.ERROR if len(split) > MANY_REPEATED * len(answers) else Severity.WARNING
    for lines in split:
        (_, original), *others = lines.items()
        for other, line in others:
            yield Finding(
                "conflicts",
                severity,
                f"answers the prompt of line {original} otherwise ({other[:40]!r})",
                "keep the right answer, or tell in the prompt what makes the difference",
                file,
                line,
            )


def _answers(rows: Sequence[Row], file: str) -> Iterator[Finding]:
    counts: Counter[str] = Counter(answer(row).strip() for row in rows)
    if len(rows) >= FEWEST and counts:
        text, most = counts.most_common(1)[0]
        if most == len(rows):
            yield error(
                "same_answer",
                f"every row has the answer {text[:40]!r}: the adapter would say it to anything",
                "add rows with the other answers (or --allow same_answer, when that is what you want)",
                file,
                rows[0].line,
            )
        elif most >= 0.9 * len(rows):
            yield warning(
                "same_answer",
                f"{most} of {len(rows)} rows have the answer {text[:40]!r}",
                "drop some of them: an adapter that always says it is right nine times of ten",
                file,
            )
    for row in rows:
        said = answer(row).strip()
        if not any(character.isalnum() for character in said) and counts[said] < 0.05 * len(rows) + 1:
            yield error(
                "near_empty",
                f"the answer is only {said!r}",
                "write the answer, or drop the row",
                file,
                row.line,
            )
        elif said.casefold().strip(".!…") in _PLACEHOLDERS:
            yield error(
                "near_empty",
                f"the answer is the placeholder {said!r}",
                "write the answer, or drop the row",
                file,
                row.line,
            )
        elif said == prompt(row)[-1][1].strip() if prompt(row) else False:
            yield warning(
                "echo", "the answer repeats the prompt word for word", "write the answer", file, row.line
            )


def _plain(key: Key) -> Key:
    return tuple((role, " ".join(text.casefold().split())) for role, text in key)
