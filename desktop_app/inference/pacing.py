"""How much of a prompt one step reads: as much as takes a moment, whatever the machine.

Nobody can be served within a step: who asks now waits until the running one is over, and who
writes gets one token a step.  Short steps cost little where threads need not wait for each other:
1.1 B Q4_0 read 46 tokens/s in steps of 16 and 45 in steps of 256 with one thread.  With two threads
beside busy programs every step costs a wait (39 tokens/s in steps of 128, 26 in 64, 15 in 32), so
steps are not as short as they could be.  On a GPU a full batch takes no more than a moment.

On the CPU flash attention works in tiles of 64 rows, the last of them filled up (`GGML_FA_TILE_Q`),
and row by row where there are fewer.  Behind 1,000 tokens the same weights took 7.9 ms a token in
steps of 128, 11.6 in 72 to 80, 15.5 in 46 to 55: whole tiles, or all that is left.
"""

from __future__ import annotations

from typing import Final

_ALONE_S: Final = 1.0
"""A step that only reads takes about so long."""
_SHARED_S: Final = 0.4
"""A step that somebody waits for with every token."""
_LONGEST_SHARED_S: Final = 1.0
"""So long it may take if that makes it a whole tile."""
_LEAST_SHARED: Final = 24
_TILE: Final = 64
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
        tiles = max(1, round(self._per_s * (_SHARED_S if rows else _ALONE_S) / _TILE))
        size = min(self._most, tiles * _TILE)
        if rows and self._per_s * _LONGEST_SHARED_S < _TILE:
            size = max(_LEAST_SHARED, min(size, int(self._per_s * _SHARED_S)))
        return max(1, size // _ROUND * _ROUND - rows)

    @staticmethod
    def piece(left: int, wanted: int, room: int) -> int:
        """How much of a prompt with `left` tokens to read when `wanted` are to be read.

        A rest that would make no tile of its own comes along, if there is `room`.
        """
        if _TILE // 2 <= wanted < left < wanted + _TILE:
            wanted = left
        return min(left, wanted, room)

    def took(self, tokens: int, seconds: float) -> None:
        """A step of so many rows in all took so long."""
        if tokens < _COUNTS_FROM or seconds <= 0:
            return
        speed = tokens / seconds
        self._per_s += (speed - self._per_s) * (_WEIGHT if self._per_s else 1.0)
