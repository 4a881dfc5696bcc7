"""Reasoning ("thinking") in replies: which marks surround it, and taking it apart while it streams.

Facts about the marks are read from the chat templates of the families named beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["text", "reasoning"]


@dataclass(frozen=True, slots=True)
class ReasoningMarkers:
    """How a family of weights marks reasoning in its replies.

    `open` and `close` surround it.  `anywhere`: these marks are control tokens that may come at any
    point of a reply; otherwise an opening counts only before the reply's first visible character,
    so that a reply *about* ``<think>`` is left alone.  `dropped` are further marks between the
    parts, never shown.  `padding` stands inside both marks, `bridge` between the closing mark and
    the reply's text, where a prompt has to spell reasoning itself.
    """

    open: str
    close: str
    anywhere: bool = False
    dropped: tuple[str, ...] = ()
    padding: str = ""
    bridge: str = ""


THINK: Final = ReasoningMarkers("<think>", "</think>", padding="\n", bridge="\n\n")

_HARMONY: Final = ReasoningMarkers(
    "<|channel|>analysis<|message|>",
    "<|end|>",
    anywhere=True,
    dropped=(
        "<|start|>assistant",
        "<|channel|>final<|message|>",
        "<|channel|>commentary<|message|>",
        "<|end|>",
        "<|return|>",
    ),
    bridge="<|start|>assistant<|channel|>final<|message|>",
)

# The first whose marks all occur in a template's source wins: (marks to look for, markers).
_KNOWN: Final[tuple[tuple[tuple[str, ...], ReasoningMarkers], ...]] = (
    (("<|channel|>analysis", "<|message|>"), _HARMONY),  # gpt-oss
    (
        ("<|channel>thought", "<channel|>"),
        ReasoningMarkers("<|channel>thought\n", "<channel|>", anywhere=True),
    ),  # Gemma 4
    (
        ("<|open|>", "<|sep|>", "think"),
        ReasoningMarkers(
            "<|open|>think<|sep|>",
            "<|close|>think<|sep|>",
            anywhere=True,
            dropped=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|end_of_msg|>"),
            bridge="<|open|>response<|sep|>",
        ),
    ),  # Kimi K3
    (
        ("<|think|>", "<|content|>"),
        ReasoningMarkers(
            "<|think|>",
            "<|end|>",
            anywhere=True,
            dropped=("<|begin|>assistant", "<|content|>", "<|end|>"),
            bridge="<|begin|>assistant<|content|>",
        ),
    ),  # Solar Open
    (
        (" to=self", "<|eom|>"),
        ReasoningMarkers(
            " to=self<|message|>",
            "<|eom|>",
            anywhere=True,
            dropped=("<|start|>assistant", " to=user<|message|>", "<|eom|>"),
            bridge="<|start|>assistant to=user<|message|>",
        ),
    ),  # Muse Glimmer
    (
        ("<think{}>", ":opensource"),
        ReasoningMarkers("<think:opensource>", "</think:opensource>"),
    ),  # Hunyuan 3
    (("[THINK]", "[/THINK]"), ReasoningMarkers("[THINK]", "[/THINK]")),  # Magistral, Ministral 3
    (("<seed:think>",), ReasoningMarkers("<seed:think>", "</seed:think>")),  # Seed-OSS
    (("<mm:think>",), ReasoningMarkers("<mm:think>", "</mm:think>")),  # MiniMax M3
    (
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ReasoningMarkers(
            "<|START_THINKING|>",
            "<|END_THINKING|>",
            dropped=(
                "<|START_RESPONSE|>",
                "<|END_RESPONSE|>",
                "<|START_TEXT|>",
                "<|END_TEXT|>",
            ),
            bridge="<|START_RESPONSE|>",
        ),
    ),  # Command R7B and A, Cohere2 MoE
    (
        ("<|inner_prefix|>", "<|inner_suffix|>"),
        ReasoningMarkers("<|inner_prefix|>", "<|inner_suffix|>"),
    ),  # Apertus
    (
        ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
        ReasoningMarkers("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ),  # Apriel
    (("◁think▷", "◁/think▷"), ReasoningMarkers("◁think▷", "◁/think▷")),  # Kimi VL
    (
        ("<response>", "<think>"),
        ReasoningMarkers("<think>", "</think>", dropped=("<response>", "</response>")),
    ),  # Granite 3.3
    (("</think>",), THINK),  # DeepSeek, Qwen, GLM, SmolLM3 and most others
)


def markers_of(template_source: str) -> ReasoningMarkers:
    """The marks that a Jinja template speaks of; `THINK` where it speaks of none."""
    for marks, markers in _KNOWN:
        if all(mark in template_source for mark in marks):
            return markers
    return THINK


def opens_reasoning(prompt: str, markers: ReasoningMarkers) -> bool:
    """Whether `prompt` ends inside reasoning (templates may open it for the reply to come)."""
    return prompt.rstrip().endswith(markers.open.rstrip())


class ReasoningSplitter:
    """Takes a reply's text apart as it comes, in pieces of any size.

    A mark that is split over pieces is held back until it is clear what it is, so nothing of it is
    ever shown.  White space beside the marks belongs to neither part.  `inside`: the prompt itself
    opened the reasoning.  `trim_start`: drop white space before the first visible character.
    Feed text in which special tokens are spelled out.  Not for use by several threads.
    """

    def __init__(
        self,
        markers: ReasoningMarkers | None,
        *,
        inside: bool = False,
        trim_start: bool = False,
    ) -> None:
        self._markers = markers
        self._inside = inside and markers is not None
        self._held = ""
        self._fresh = True  # nothing visible of the reply's text yet
        self._trim = trim_start or self._inside
        self._spaces = ""  # white space that the next characters will show or a mark will swallow

    @property
    def is_inside(self) -> bool:
        """Whether what comes next is reasoning."""
        return self._inside

    def feed(self, text: str) -> list[tuple[Kind, str]]:
        """What can be shown now, in order."""
        self._held += text
        return self._split(final=False)

    def finish(self) -> list[tuple[Kind, str]]:
        """The rest, when the reply is over."""
        out = self._split(final=True)
        if self._spaces and not self._trim:
            _add(out, "reasoning" if self._inside else "text", self._spaces)
        self._spaces = ""
        return out

    def _split(self, *, final: bool) -> list[tuple[Kind, str]]:
        out: list[tuple[Kind, str]] = []
        while self._held:
            marks = self._marks()
            at, mark = _first(self._held, marks)
            if mark and self._comes_late(mark, self._held[:at]):
                self._emit(out, self._held[:at], before_mark=False)
                self._held = self._held[at:]
                continue
            if mark and (final or not _longer(self._held, at, mark, marks)):
                self._emit(out, self._held[:at], before_mark=True)
                self._held = self._held[at + len(mark) :]
                self._pass(mark)
                continue
            keep = 0 if final else _undecided(self._held, marks)
            ready, self._held = (
                self._held[: len(self._held) - keep],
                self._held[-keep:] * bool(keep),
            )
            fresh = self._fresh
            self._emit(out, ready, before_mark=False)
            if final or not ready or self._fresh == fresh:
                break
            # The reply has begun: marks that counted only before it are plain text from here on.
        return out

    def _marks(self) -> tuple[str, ...]:
        markers = self._markers
        if markers is None:
            return ()
        if self._inside:
            return (markers.close,)
        if markers.anywhere or self._fresh:
            return (markers.open, *markers.dropped)
        return markers.dropped

    def _comes_late(self, mark: str, before: str) -> bool:
        """Whether this opening is plain text, because the reply has begun before it."""
        assert self._markers is not None
        return (
            not self._inside
            and not self._markers.anywhere
            and mark == self._markers.open
            and bool(before.strip())
        )

    def _pass(self, mark: str) -> None:
        assert self._markers is not None
        if self._inside:
            self._inside = False
            self._trim = True
        elif mark == self._markers.open:
            self._inside = True
        self._trim = self._trim or self._fresh or mark == self._markers.open
        self._spaces = ""

    def _emit(self, out: list[tuple[Kind, str]], text: str, *, before_mark: bool) -> None:
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        elif self._fresh and not self._inside and before_mark and not text.strip():
            text = ""
        text = self._spaces + text
        body = text.rstrip()
        self._spaces = "" if before_mark else text[len(body) :]
        if body:
            self._fresh = self._fresh and self._inside
            _add(out, "reasoning" if self._inside else "text", body)


def _first(text: str, marks: tuple[str, ...]) -> tuple[int, str]:
    """Where the first mark stands, and which (the longest of several at one place)."""
    best, found = len(text), ""
    for mark in marks:
        at = text.find(mark)
        if at >= 0 and (at < best or (at == best and len(mark) > len(found))):
            best, found = at, mark
    return best, found


def _longer(text: str, at: int, mark: str, marks: tuple[str, ...]) -> bool:
    """Whether more text could make the mark at `at` a longer one."""
    rest = text[at:]
    return any(other != mark and other.startswith(rest) for other in marks)


def _undecided(text: str, marks: tuple[str, ...]) -> int:
    """How many characters at the end could be the beginning of a mark."""
    longest = max((len(mark) for mark in marks), default=0)
    for size in range(min(longest - 1, len(text)), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in marks):
            return size
    return 0


def _add(out: list[tuple[Kind, str]], kind: Kind, text: str) -> None:
    if out and out[-1][0] == kind:
        out[-1] = (kind, out[-1][1] + text)
    else:
        out.append((kind, text))
