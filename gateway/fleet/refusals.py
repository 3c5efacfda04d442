"""What an engine's "not now" teaches: it is fuller than one gateway knows, so ask again, but not at once."""

from __future__ import annotations

import random

Key = str | None
"""A version's name; None for the base."""

FIRST_S, LONGEST_S = 0.02, 0.5
"""The first pause, and where doubling ends."""


class Refusals:
    """Since a refusal new keys are tried one at a time, a pause apart, until one of them is taken.

    The pause doubles when what was tried is refused again, from `FIRST_S` to `LONGEST_S`, each drawn from
    0.75 to 1.25 times that, so that gateways do not ask in step. It halves with every trial that outlives its
    pause, and is forgotten when the key of a trial is seen to leave. Refusals of requests that were under way
    when the pause began do not double it: they say the same thing again.
    """

    __slots__ = ("_again", "_length_s", "_random", "_trials", "_tried", "keys", "pausing")

    def __init__(self, seed: int | None) -> None:
        self.pausing = False
        self.keys: set[Key] = set()
        """Refused, and not to be tried in this pause, even if others of the key are in flight."""
        self._random = random.Random(seed)  # noqa: S311  it spreads retries, and guards nothing
        self._length_s = 0.0
        self._trials: set[Key] = set()
        self._again: set[Key] = set()
        self._tried = False

    @property
    def fresh(self) -> bool:
        """Whether a refusal still matters."""
        return self._length_s > 0.0

    def refused(self, key: Key) -> float | None:
        """The seconds to pause from now; None: the pause that runs is long enough."""
        self.keys.add(key)
        if key in self._trials or key in self._again:
            self._trials.discard(key)
            self._again.clear()
            self._tried = False
            self._length_s = min(LONGEST_S, 2.0 * self._length_s)
        elif self.pausing:
            return None
        elif not self.fresh:
            self._length_s = FIRST_S
        return self._pause()

    def opened(self, key: Key) -> float:
        """A new key is tried: the seconds until the next one may be."""
        self._trials.add(key)
        self._tried = True
        return self._pause()

    def passed(self) -> list[Key]:
        """The pause is over by time; see `resume`."""
        self._again = set(self.keys)
        if self._tried:
            self._tried = False
            self._length_s /= 2.0
            if self._length_s < FIRST_S:
                self.forget()
        return self.resume()

    def resume(self) -> list[Key]:
        """The pause is over, however. Gives the keys that were refused, which may be tried again."""
        self.pausing = False
        refused = list(self.keys)
        self.keys.clear()
        return refused

    def took(self, key: Key) -> bool:
        """A request of `key` was served: whether it was a trial. Then the engine has room after all."""
        if key not in self._trials:
            return False
        self.forget()
        return True

    def forget(self) -> None:
        """The next refusal is the first again, and until then nothing is a trial."""
        self._length_s = 0.0
        self._trials.clear()
        self._again.clear()
        self._tried = False

    def _pause(self) -> float:
        self.pausing = True
        return self._length_s * self._random.uniform(0.75, 1.25)
