"""What a prompt is, and how a conversation that outgrew the context becomes one that fits."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from desktop_app.errors import KnownError
from desktop_app.inference.protocol import ChatMessage
from desktop_app.inference.reasoning import ReasoningMarkers
from desktop_app.inference.shield import Vocab

_KEEP_SHARE: Final = 0.6
"""How full the budget is made when turns must be left out."""


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """A prompt, ready to be read by the weights.

    `text` is what the tokens say (without a BOS that only the vocabulary adds).  `stops` end a
    reply besides the vocabulary's own end-of-generation tokens.  `reasoning` are the marks to take
    reasoning apart by (None: base weights, nothing is taken apart); `reasoning_open`: the prompt
    ends inside it.  `trim_start`: white space before the reply's first visible character is the
    layout's, not the reply's.  `template_hash` (sha256, 16 hex digits) is provenance.  `notes` say
    in words what was changed to suit the template.
    """

    text: str
    tokens: tuple[int, ...]
    stops: tuple[str, ...]
    reasoning: ReasoningMarkers | None
    reasoning_open: bool
    trim_start: bool
    family: str
    template_hash: str
    notes: tuple[str, ...] = ()

    def pieces(self, vocab: Vocab) -> tuple[str, ...]:
        """Each token's text, for showing.  A character that is split over tokens is shown at its
        last one; the pieces joined are the text.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        last = len(self.tokens) - 1
        return tuple(
            decoder.decode(vocab.token_piece(token), i == last)
            for i, token in enumerate(self.tokens)
        )


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where a conversation's prompt begins since turns had to be left out.

    `left_out` messages after the system text; `digest` of them, so that it holds for this branch
    only.
    """

    left_out: int
    digest: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits: pass `boundary` in again with the next turn.  None: nothing left out."""

    plan: PromptPlan
    boundary: Boundary | None
    left_out: int


def fit_turns(
    build: Callable[[Sequence[ChatMessage]], PromptPlan],
    messages: Sequence[ChatMessage],
    budget: int,
    boundary: Boundary | None,
) -> Fitted:
    """See `prompt.PromptBuilder.fit`; `build` makes the prompt of the messages that are kept."""
    top = 0
    while top < len(messages) and messages[top].role == "system":
        top += 1
    head, rest = list(messages[:top]), list(messages[top:])
    cuts = [0, *(i for i, message in enumerate(rest) if i and message.role == "user")]
    start = boundary.left_out if boundary is not None else 0
    if start not in cuts or (boundary is not None and _digest(rest[:start]) != boundary.digest):
        start = 0
    plan = build(head + rest[start:])
    if len(plan.tokens) > budget:
        target = int(budget * _KEEP_SHARE)
        later = [cut for cut in cuts if cut > start]
        low, high = 0, len(later) - 1
        # The first cut that gets below the target; the last one whatever it gives.
        while low < high:
            middle = (low + high) // 2
            if len(build(head + rest[later[middle] :]).tokens) <= target:
                high = middle
            else:
                low = middle + 1
        if later:
            start = later[low]
            plan = build(head + rest[start:])
    if len(plan.tokens) > budget:
        raise _too_long(len(plan.tokens), budget)
    kept = Boundary(start, _digest(rest[:start])) if start else None
    return Fitted(plan, kept, start)


def _digest(messages: Sequence[ChatMessage]) -> str:
    made = hashlib.sha256()
    for message in messages:
        for text in (message.role, message.text):
            data = text.encode("utf-8", "surrogatepass")
            made.update(len(data).to_bytes(8, "big") + data)
    return made.hexdigest()


def _too_long(needed: int, budget: int) -> KnownError:
    return KnownError(
        "message-too-long",
        f"This message is too long: with the system text it takes {needed:,} tokens, and"
        f" {budget:,} fit; shorten it, or load the weights with a longer context.",
    )
