"""What a view remembers of each chat on disk: unsent text, and where each branch was read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, QTimer

from desktop_app.storage import Library
from desktop_app.ui.bridge import Bridge

SAVE_AFTER_MS = 400
_MOST_PLACES = 60
_MOST_GROUPS = 20
_KEY = "view"


class ChatMemory(QObject):
    """The memory of one open chat.  Writes a short while after a change, and on `flush`.

    `places` maps the head of a path (the branch's last message) to what stood at the top of the
    view there: a message and how many px of it were above.  Main thread only.
    """

    def __init__(self, library: Library, bridge: Bridge, chat_id: int) -> None:
        super().__init__()
        self._library = library
        self._bridge = bridge
        self._chat_id = chat_id
        self._places: dict[str, list[int]] = {}
        self._draft = ""
        self._drafts: list[list[int]] = []
        self._dirty = False
        self._timer = QTimer(self, interval=SAVE_AFTER_MS, singleShot=True)
        self._timer.timeout.connect(self.flush)

    def load(self, done: Callable[[], None]) -> None:
        """Read what was kept, then call `done` on the main thread."""

        def arrived(state: Any) -> None:
            kept = state if isinstance(state, dict) else {}
            places, draft = kept.get("places"), kept.get("draft")
            # Text typed while this was being read is newer.
            if not self._dirty:
                self._draft = draft if isinstance(draft, str) else ""
                self._drafts = _groups(kept.get("drafts"))
            if isinstance(places, dict):
                self._places = {**places, **self._places}
            done()

        self._bridge.when_done(self._library.ui_state(self._chat_id, _KEY), arrived)

    @property
    def draft(self) -> str:
        """Text that was written and not sent."""
        return self._draft

    def keep_draft(self, text: str) -> None:
        """Remember unsent text; empty once it was sent."""
        if text != self._draft:
            self._draft = text
            self._touch()

    @property
    def drafts(self) -> list[list[int]]:
        """Message ids of drafts that are compared, those of one prompt together."""
        return self._drafts

    def keep_drafts(self, groups: list[list[int]]) -> None:
        """Remember which drafts are compared."""
        if groups != self._drafts:
            self._drafts = groups[-_MOST_GROUPS:]
            self._touch()

    def place(self, head_id: int) -> tuple[int, int] | None:
        """Where a branch was read last: message id and px above; None when never."""
        kept = self._places.get(str(head_id))
        if isinstance(kept, list) and len(kept) == 2 and all(isinstance(n, int) for n in kept):
            return kept[0], kept[1]
        return None

    def keep_place(self, head_id: int, message_id: int, offset_px: int) -> None:
        """Remember where a branch is being read."""
        key, kept = str(head_id), [message_id, offset_px]
        if self._places.get(key) == kept:
            return
        self._places.pop(key, None)
        self._places[key] = kept
        while len(self._places) > _MOST_PLACES:
            del self._places[next(iter(self._places))]
        self._touch()

    def flush(self) -> None:
        """Write now what has changed."""
        self._timer.stop()
        if self._dirty:
            self._dirty = False
            state = {"draft": self._draft, "places": self._places, "drafts": self._drafts}
            self._library.set_ui_state(self._chat_id, _KEY, state)

    def _touch(self) -> None:
        self._dirty = True
        self._timer.start()


def _groups(value: object) -> list[list[int]]:
    """Drafts as they were kept; anything else counts as none."""
    groups = value if isinstance(value, list) else []
    return [g for g in groups if isinstance(g, list) and all(isinstance(i, int) for i in g)]
