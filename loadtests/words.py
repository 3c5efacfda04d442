"""Texts of a given number of words, for prompts and planned answers. One word is about one token.

"About": these are short, common English words, most of which a BPE vocabulary holds whole with the space
before them. The server's usage says what they came to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from loadtests.percentiles import Ints

LIST = """
able about above across act add after again age ago air all along also always among animal answer any
appear area arm army art ask away baby back bad ball bank base bath be bear beat bed been before began
behind bell best better big bird black blood blue board boat body bone book both box boy bread bring
brother build busy buy call came can car care carry case cat catch cause cell center change check child
choose city class clean clear climb clock close cloth cloud coast coat cold color come cook cool copy corn
corner cost count country course cover cow cross crowd cry cut dance dark day dead deal dear decide deep
desk did differ dog done door down draw dream dress drink drive drop dry each early earth ease east eat
edge egg eight end energy enough enter equal even event ever every exact eye face fact fall family far
farm fast father fear feel feet few field fight figure fill final find fine finger finish fire first fish
fit five flat floor flow flower fly food foot force forest form forward found four free fresh friend front
fruit full fun game garden gas gave general gentle get girl give glad glass go gold good got grand grass
gray great green grew ground group grow guess guide gun hair half hand happen happy hard hat have head
hear heart heat heavy help here high hill hold home hope horse hot hour house human hurry ice idea inside
island job join jump
"""

WORDS = tuple(LIST.split())
"""256 of them, so that a byte picks one."""

OPENING = 3
"""Words at the start of a unique text that spell its number: 256^3 texts, 16.7 million, differ."""

STRIDE = 10_368_889
"""Odd, so that steps of it go through all 256^3 openings before one comes again."""

BATCH = 1024
"""Texts made at a time: their words are held as one array."""


def texts(rng: np.random.Generator, counts: Ints, unique: bool = False) -> Iterator[str]:
    """One text for each of `counts` [n], of that many words.

    With `unique`, all of at least 3 words differ from each other in their first 3, so that no prefix cache
    keeps one for another.
    """
    table = np.array(WORDS, dtype=object)
    first = int(rng.integers(256**OPENING)) if unique else 0
    for at in range(0, counts.size, BATCH):
        batch = counts[at : at + BATCH]
        ends = np.cumsum(batch)
        chosen = rng.integers(256, size=int(ends[-1]), dtype=np.uint8)
        if unique:
            numbers = (first + np.arange(at, at + batch.size) * STRIDE) % 256**OPENING
            _open(chosen, ends - batch, batch, numbers)
        flat = table[chosen].tolist()
        start = 0
        for end in ends.tolist():
            yield " ".join(flat[start:end])
            start = end


def _open(chosen: npt.NDArray[np.uint8], starts: Ints, counts: Ints, numbers: Ints) -> None:
    """Write each number, in base 256, over the first words of its text."""
    for digit in range(OPENING):
        there = counts > digit
        chosen[starts[there] + digit] = (numbers[there] >> (8 * digit)) & 255
