"""Which of several targets answers a unit: the same one every time, in every gateway, without a look-up.

Weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights as in Schindelhauer and Schomaker, 2005):
each target t draws, from a hash of (salt, route, unit, t), a number u in (0, 1), and the one with the
greatest -weight(t) / ln(u) answers. Of many units a target gets the share weight(t) / sum of weights. When
the weight of one target grows against the others, units move to it and none away from it, and those that
move are as many as its share has grown by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b

_SCALE = 2.0**-64


class Split:
    """Of the units of `route` over targets with positive weights. `salt` is drawn for each rollout: it would
    be wrong to try everything on the same units first.

    Raises `ValueError` for weights that are none.
    """

    def __init__(self, salt: str, route: str, weights: Mapping[str, float]) -> None:
        bad = {target: weight for target, weight in weights.items() if not _is_weight(weight)}
        if bad:
            told = ", ".join(f"{target}: {weight}" for target, weight in bad.items())
            raise ValueError(f"a weight is a number of at least 0, and finite; there is {told}")
        positive = {target: float(weight) for target, weight in weights.items() if weight > 0}
        if not positive:
            raise ValueError("all weights are 0, so nothing would answer; give one of them a positive weight")
        if math.isinf(sum(positive.values())):
            raise ValueError("the weights are so large that their sum is no number; use smaller ones")
        head = b"\0".join((salt.encode(), route.encode()))
        self._targets = [
            (target, weight, blake2b(b"\0".join((head, target.encode(), b"")), digest_size=8))
            for target, weight in sorted(positive.items())
        ]
        self._only = self._targets[0][0] if len(self._targets) == 1 else None

    @property
    def shares(self) -> Mapping[str, float]:
        """Of each target with a positive weight; their sum is 1."""
        whole = sum(weight for _, weight, _ in self._targets)
        return {target: weight / whole for target, weight, _ in self._targets}

    def of(self, unit: bytes) -> str:
        """The target that answers the unit."""
        if self._only is not None:
            return self._only
        best, chosen = -1.0, ""
        for target, weight, hashed in self._targets:
            drawing = hashed.copy()
            drawing.update(unit)
            # In (0, 1): never 0, whose logarithm there is none of, and never 1.
            drawn = (int.from_bytes(drawing.digest(), "little") + 0.5) * _SCALE
            score = weight / -math.log(drawn) if drawn < 1.0 else math.inf
            if score > best:
                best, chosen = score, target
        return chosen


def _is_weight(weight: object) -> bool:
    if not isinstance(weight, int | float) or isinstance(weight, bool):
        return False
    return math.isfinite(weight) and weight >= 0
