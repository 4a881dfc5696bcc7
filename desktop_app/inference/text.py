"""From tokens to text that may be shown: whole characters, no stop strings, reasoning apart.

One `ReplyText` per reply takes the bytes of each token and gives back what can be shown for sure.
Three things make it wait: a character that is spread over several tokens, a text that may become a
stop string, and a text that may become a reasoning marker.  Whatever it gave back is final: nothing
shown is ever taken back.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from desktop_app.inference.protocol import Kind
from desktop_app.inference.reasoning import ReasoningMarkers, ReasoningSplitter


class Utf8Stream:
    """Bytes in any cuts → whole characters.  Bytes that are no UTF-8 are left out, never "�"."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")

    def feed(self, data: bytes) -> str:
        """The characters that `data` completes."""
        return self._decoder.decode(data)


def held_back(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` could be the beginning of one of `marks`."""
    longest = 0
    for mark in marks:
        for size in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:size]):
                longest = size
                break
    return longest


class StopFilter:
    """Ends a text at the first stop string, and shows no part of it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.hit = ""

    def feed(self, text: str) -> str:
        """The text that is surely before any stop string; `hit` tells when one came."""
        if self.hit:
            return ""
        text = self._held + text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, self.hit = min(found)
            self._held = ""
            return text[:at]
        size = held_back(text, self._stops)
        self._held = text[len(text) - size :]
        return text[: len(text) - size]

    def finish(self) -> str:
        """What was held back and turned out to be text."""
        text, self._held = self._held, ""
        return text


class ReplyText:
    """A reply's tokens → pieces that may be shown."""

    def __init__(
        self,
        *,
        stops: Sequence[str] = (),
        markers: ReasoningMarkers | None = None,
        inside_reasoning: bool = False,
        trim_start: bool = False,
    ) -> None:
        """`trim_start`: white space before the first visible character is the vocabulary's."""
        self._utf8 = Utf8Stream()
        self._stop = StopFilter(stops)
        self._stops = frozenset(stop.strip() for stop in stops)
        self._splitter = ReasoningSplitter(markers, inside=inside_reasoning, trim_start=trim_start)
        self._markers = markers
        self._begun = False
        self._marks = (markers.open, markers.close, *markers.dropped) if markers else ()

    @property
    def stopped(self) -> bool:
        """Whether a stop string came: the reply is over."""
        return bool(self._stop.hit)

    def feed(self, data: bytes) -> list[tuple[Kind, str]]:
        """The bytes of an ordinary token."""
        text = self._stop.feed(self._utf8.feed(data))
        return self._show(self._splitter.feed(text)) if text else []

    def feed_control(self, text: str) -> list[tuple[Kind, str]]:
        """The spelling of a control token: a stop, a part of a marker, or nothing to be shown."""
        if text and text.strip() in self._stops:
            self._stop.hit = text
            return []
        shown = self._show(self._splitter.feed(self._stop.finish()))
        if text and any(text in mark for mark in self._marks) and self._counts(text):
            shown += self._show(self._splitter.feed(text))
        return shown

    def _counts(self, text: str) -> bool:
        """Whether a marker that is one control token means something here; else it is hidden."""
        markers = self._markers
        assert markers is not None
        if text in markers.dropped:
            return True
        if text.strip() == markers.close.strip():
            return self._splitter.is_inside
        if text.strip() == markers.open.strip():
            return not self._splitter.is_inside and (markers.anywhere or not self._begun)
        return True

    def _show(self, shown: list[tuple[Kind, str]]) -> list[tuple[Kind, str]]:
        self._begun = self._begun or any(kind == "text" for kind, _ in shown)
        return shown

    def finish(self) -> list[tuple[Kind, str]]:
        """What was held back; call once, at the end."""
        return self._splitter.feed(self._stop.finish()) + self._splitter.finish()
