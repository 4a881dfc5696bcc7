"""From tokens to text that may be shown: whole characters, no stop strings, reasoning apart.

One `ReplyText` per reply takes the bytes of each token and gives back what can be shown for sure.
Three things make it wait: a character that is spread over several tokens, a text that may become a
stop string, and a text that may become a reasoning marker.  Whatever it gave back is final: nothing
shown is ever taken back.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from desktop_app.inference.protocol import Kind


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


@dataclass(frozen=True, slots=True)
class Markers:
    """What opens and closes a reasoning part."""

    opening: str
    closing: str


class ReasoningSplitter:
    """Parts a reply into reasoning and text.

    A marker spelled in plain text opens a part only at the reply's very beginning, so that a reply
    may talk about "<think>"; one that is a token of its own (`feed_marker`) does so anywhere.  The
    white space around the parts belongs to neither.
    """

    def __init__(self, markers: Sequence[Markers], *, inside: bool = False) -> None:
        """`inside`: the prompt itself already opened a part."""
        self._markers = tuple(markers)
        self._closing = markers[0].closing if inside and markers else ""
        self._held = ""
        self._at_start = bool(self._markers)
        self._strip = bool(self._closing)
        self._space = ""

    def feed_marker(self, text: str) -> list[tuple[Kind, str]] | None:
        """Take a control token's text; None when it is no marker that means something here."""
        if self._closing:
            if text.strip() != self._closing.strip():
                return None
            shown = self.finish()
            self._close()
            return shown
        for marker in self._markers:
            if text.strip() == marker.opening.strip():
                shown = self.finish()
                self._open(marker)
                return shown
        return None

    def feed(self, text: str) -> list[tuple[Kind, str]]:
        """The parts of `text` that are sure."""
        shown: list[tuple[Kind, str]] = []
        text = self._held + text
        self._held = ""
        while text:
            if self._closing:
                at = text.find(self._closing)
                if at < 0:
                    size = held_back(text, [self._closing])
                    self._held = text[len(text) - size :]
                    self._show(shown, "reasoning", text[: len(text) - size])
                    break
                self._show(shown, "reasoning", text[:at])
                text = text[at + len(self._closing) :]
                self._close()
            elif self._at_start:
                body = text.lstrip()
                opened = next((m for m in self._markers if body.startswith(m.opening)), None)
                if opened is not None:
                    text = body[len(opened.opening) :]
                    self._open(opened)
                elif any(marker.opening.startswith(body) for marker in self._markers):
                    self._held = text
                    break
                else:
                    self._at_start = False
            else:
                self._show(shown, "text", text)
                break
        return shown

    def finish(self) -> list[tuple[Kind, str]]:
        """What was held back and turned out to be text."""
        shown: list[tuple[Kind, str]] = []
        text, self._held, self._at_start = self._held, "", False
        self._show(shown, "reasoning" if self._closing else "text", text)
        return shown

    def _open(self, marker: Markers) -> None:
        self._closing, self._at_start = marker.closing, False
        self._strip, self._space = True, ""

    def _close(self) -> None:
        self._closing, self._at_start = "", False
        self._strip, self._space = True, ""

    def _show(self, shown: list[tuple[Kind, str]], kind: Kind, text: str) -> None:
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        if kind == "reasoning":  # white space at its end must not appear: wait for what follows
            text = self._space + text
            body = text.rstrip()
            self._space = text[len(body) :]
            text = body
        if text:
            shown.append((kind, text))


class ReplyText:
    """A reply's tokens → pieces that may be shown."""

    def __init__(
        self,
        *,
        stops: Sequence[str] = (),
        markers: Sequence[Markers] = (),
        inside_reasoning: bool = False,
        strip_first_space: bool = False,
    ) -> None:
        """`strip_first_space`: a SentencePiece vocabulary begins a text with a space of its own."""
        self._utf8 = Utf8Stream()
        self._stop = StopFilter(stops)
        self._stops = frozenset(stop.strip() for stop in stops)
        self._splitter = ReasoningSplitter(markers, inside=inside_reasoning)
        self._strip = strip_first_space

    @property
    def stopped(self) -> bool:
        """Whether a stop string came: the reply is over."""
        return bool(self._stop.hit)

    def feed(self, data: bytes) -> list[tuple[Kind, str]]:
        """The bytes of an ordinary token."""
        text = self._utf8.feed(data)
        if self._strip and text:
            text, self._strip = text.removeprefix(" "), False
        return self._splitter.feed(self._stop.feed(text)) if text else []

    def feed_control(self, text: str) -> list[tuple[Kind, str]]:
        """The spelling of a control token: a stop, a marker, or nothing to be shown."""
        if text and text.strip() in self._stops:
            self._stop.hit = text
            return []
        pending = self._splitter.feed(self._stop.finish())
        marked = self._splitter.feed_marker(text)
        self._strip = self._strip and marked is None
        return pending + (marked or [])

    def finish(self) -> list[tuple[Kind, str]]:
        """What was held back; call once, at the end."""
        return self._splitter.feed(self._stop.finish()) + self._splitter.finish()
