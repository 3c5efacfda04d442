"""Whether what is learned from may be learned from, by the names that licences have.

No legal advice: a list of what the licences themselves say, and no for whatever is not on it, until a person
who has read it says otherwise (`licences.accept`), which the manifest records.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from training.dataset.plan import DatasetError

FREE = (
    *(
        "0bsd",
        "apache-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsl-1.0",
        "cc0-1.0",
        "isc",
        "mit",
        "pddl",
        "unlicense",
    ),
    *("cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "odc-by", "zlib"),
    *("ecl-2.0", "ms-pl", "afl-3.0", "postgresql", "wtfpl", "public-domain"),
    "own",
)
"""They allow derivatives, for any purpose; some ask to be named with what is made of them."""
SHARE_ALIKE = (
    "cc-by-sa-2.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cdla-sharing-1.0",
    "odbl",
    "gfdl",
    "gpl-3.0",
    "gpl-2.0",
)
"""They allow derivatives under the same terms: whether an adapter is one is not settled, so a person
decides."""
REFUSING = {
    "cc-by-nd": "forbids derivatives",
    "cc-by-nc": "forbids commercial use",
    "nc": "forbids commercial use",
    "nd": "forbids derivatives",
    "proprietary": "reserves all rights",
    "all-rights-reserved": "reserves all rights",
}
BASES = ("llama", "gemma", "openrail", "bigscience", "qwen", "deepseek", "mistral")
"""Beginnings of model licences that allow derivatives under conditions of use; a person has to have read
them."""
ALIASES = {
    "apache 2.0": "apache-2.0",
    "apache2": "apache-2.0",
    "apache license 2.0": "apache-2.0",
    "mit license": "mit",
    "bsd": "bsd-3-clause",
    "cc0": "cc0-1.0",
    "cc by 4.0": "cc-by-4.0",
    "gpl": "gpl-3.0",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """`allowed`, or `why` not. `accepted`: a person took the responsibility."""

    licence: str
    allowed: bool
    why: str = ""
    accepted: bool = False


def known(licence: str) -> str:
    """The name that the lists here have for it."""
    plain = " ".join(licence.strip().lower().replace("_", "-").split())
    return ALIASES.get(plain, plain.replace(" ", "-"))


def judged(licence: str, accepted: Collection[str]) -> Judgement:
    """Whether data or a base under `licence` may be trained on."""
    name = known(licence)
    if name and name in set(map(known, accepted)):
        return Judgement(name, allowed=True, accepted=True)
    if name in FREE:
        return Judgement(name, allowed=True)
    if name in ("", "unknown", "other", "none"):
        return Judgement(name, allowed=False, why="nobody said what its licence is")
    if name in SHARE_ALIKE:
        return Judgement(name, allowed=False, why="asks that what is made of it is under the same terms")
    words = set(re.split(r"[-.]", name))
    for sign, why in REFUSING.items():
        if name.startswith(sign) or sign in words:
            return Judgement(name, allowed=False, why=why)
    if name.startswith(BASES):
        return Judgement(name, allowed=False, why="has conditions of use that somebody must have read")
    return Judgement(name, allowed=False, why="is not a licence that is known here")


def gate(
    sources: Collection[tuple[str, str]], base: str | None, accepted: Collection[str]
) -> list[Judgement]:
    """Of pairs of a source's name and its licence, and the base's licence where a base is there.

    Raises `DatasetError` naming all that may not be trained on, and what to do.
    """
    asked = [*sources, *([] if base is None else [("the base", base)])]
    found = [(name, judged(licence, accepted)) for name, licence in asked]
    refused = [(name, each) for name, each in found if not each.allowed]
    if refused:
        lines = [f"  {name}: {each.licence or 'no licence'}: {each.why}" for name, each in refused]
        ways = sorted({f"--accept-licence {each.licence}" for _, each in refused if each.licence})
        unnamed = (
            ["--licence NAME (own, for what is yours)"]
            if any(not each.licence for _, each in refused)
            else []
        )
        raise DatasetError(
            "\n".join(["this may not be trained on as it is:", *lines])
            + f"\nsay so when you know better: {', '.join([*unnamed, *ways])}"
        )
    return [each for _, each in found]
