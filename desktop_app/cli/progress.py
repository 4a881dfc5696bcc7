"""One line on a terminal's stderr for whatever takes longer than half a second."""

from __future__ import annotations

import sys
import time

QUIET_S = 0.5
_EVERY_S = 0.1


class Progress:
    """Shows "label 42 %" while something lasts; nothing at all where stderr is no terminal."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._began = time.monotonic()
        self._last = 0.0
        self._shown = False
        self._terminal = sys.stderr.isatty()

    def update(self, fraction: float | None = None, label: str | None = None) -> None:
        """Tell how far it is, 0 to 1; None where nobody knows."""
        if label is not None:
            self._label = label
        now = time.monotonic()
        if not self._terminal or now - self._began < QUIET_S or now - self._last < _EVERY_S:
            return
        self._last, self._shown = now, True
        share = "" if fraction is None else f" {min(1.0, fraction):.0%}"
        print(f"\r\033[K{self._label}…{share}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._shown = False
