"""How much of a prompt one step reads: as much as takes a moment, whatever the machine.

Nobody can be served within a step: who asks now waits until the running one is over, and who
writes gets one token a step.  Short steps cost little where threads need not wait for each other:
1.1 B Q4_0 read 46 tokens/s in steps of 16 and 45 in steps of 256 with one thread.  With two threads
beside busy programs every step costs a wait (39 tokens/s in steps of 128, 26 in 64, 15 in 32), so
steps are not as short as they could be.  On a GPU a full batch takes no more than a moment.
"""

from __future__ import annotations

from typing import Final

_ALONE_S: Final = 1.0
"""A step that only reads takes about so long."""
_SHARED_S: Final = 0.4
"""A step that somebody waits for with every token."""
_LEAST_ALONE: Final = 64
_LEAST_SHARED: Final = 24
_ROUND: Final = 8
"""CPU kernels take rows by four or eight; the one left over costs as much as the whole eight."""
_WEIGHT: Final = 0.3
_COUNTS_FROM: Final = 12
"""A step with fewer tokens says little about the speed of reading."""


class Pace:
    """The size of the next step, from the speed of the last ones."""

    def __init__(self, most: int) -> None:
        """`most`: tokens of the longest step."""
        self._most = most
        self._per_s = 0.0

    def tokens(self, rows: int) -> int:
        """How many tokens of prompts to read in a step in which `rows` drafts write."""
        seconds, least = (_SHARED_S, _LEAST_SHARED) if rows else (_ALONE_S, _LEAST_ALONE)
        size = max(least, min(self._most, int(self._per_s * seconds)))
        return max(1, size // _ROUND * _ROUND - rows)

    def took(self, tokens: int, seconds: float) -> None:
        """A step of so many rows in all took so long."""
        if tokens < _COUNTS_FROM or seconds <= 0:
            return
        speed = tokens / seconds
        self._per_s += (speed - self._per_s) * (_WEIGHT if self._per_s else 1.0)
