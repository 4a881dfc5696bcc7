"""What the transcript is told about one message: everything that a row shows, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RowState(StrEnum):
    """What a message is doing, as its badge says it."""

    DONE = "done"
    LOADING = "loading"  # the weights are being loaded; `progress` says how far
    READING = "reading"  # the prompt is being read; `progress` says how far
    WRITING = "writing"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"  # Grove or the computer went down while it was written
    FAILED = "failed"

    @property
    def is_live(self) -> bool:
        """Whether the engine is at work on this message."""
        return self in (RowState.LOADING, RowState.READING, RowState.WRITING)


class EditMode(StrEnum):
    """How an edit is kept; sent with `Transcript.edit_saved`."""

    IN_PLACE = "in-place"
    AS_VERSION = "as-version"
    ASK_AGAIN = "ask-again"


@dataclass(frozen=True, slots=True)
class RowAction:
    """A next step offered by a failed row; `main` ones look like a button."""

    key: str
    label: str
    main: bool = False


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Messages that continue on another version of a row's message."""

    version: int  # counted from 1
    messages: int


@dataclass(frozen=True, slots=True)
class RowView:
    """One message of the active path, ready to show.

    `text` is Markdown for replies and plain text (with fenced code) for prompts.  `detail` stands
    small beside the state ("58% of 1,912 tokens, about 9 s left", "Read 46 tokens, 3,070 kept").
    `error` is the one sentence of a failure, `error_badge` its cause in two or three words.
    `below` counts the messages under this version, for the wording of Delete.

    Drafts that are compared are one row: `drafts` are their messages, `shown_draft` the one on the
    open path, whose facts the row itself has, and `message_id` is that of the first, so that it
    stays the same.  In a draft, `draft` is its number from 1, and `facts` stand below its text.
    """

    message_id: int
    role: str  # "user", "assistant", "system", "tool"
    author: str = ""  # "" for the user: the row says "You" in the interface language
    time: str = ""
    time_tip: str = ""
    text: str = ""
    reasoning: str = ""
    state: RowState = RowState.DONE
    progress: float = 0.0
    detail: str = ""
    error: str = ""
    error_badge: str = ""
    error_detail: str = ""
    actions: tuple[RowAction, ...] = ()
    version: int = 1
    versions: int = 1
    version_tip: str = ""
    stale: bool = False
    starred: bool = False
    edited: bool = False
    below: int = 0
    elsewhere: tuple[Elsewhere, ...] = ()
    can_ask_again: bool = True
    can_continue: bool = True
    draft: int = 0
    seed: int | None = None
    facts: str = ""
    drafts: tuple[RowView, ...] = ()
    shown_draft: int = 0

    @property
    def is_user(self) -> bool:
        """Whether the person wrote it: a square node and a block behind the text."""
        return self.role == "user"
