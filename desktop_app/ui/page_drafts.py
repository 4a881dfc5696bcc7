"""Which drafts a page compares side by side, and what their cards say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PySide6.QtCore import QLocale

from desktop_app.conversation import Conversation
from desktop_app.session import Session
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.chat_memory import ChatMemory
from desktop_app.ui.path_rows import Live, row_of
from desktop_app.ui.row_view import RowView
from desktop_app.ui.words import tr

_NO_LIVE: Mapping[int, Live] = {}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a draft of an earlier run took."""

    seed: int | None
    tokens: int
    speed: float


class PageDrafts:
    """The drafts of one page: those asked for together stand side by side until one is kept, or
    until the chat goes on below one of them.  Kept with the view, on disk.  Main thread only."""

    def __init__(self, session: Session, bridge: Bridge, changed: Callable[[], None]) -> None:
        """`changed` is called when facts of earlier runs have been read."""
        self.memory: ChatMemory | None = None
        self._session = session
        self._bridge = bridge
        self._changed = changed
        self._facts: dict[int, _Facts] = {}
        self._asked: set[int] = set()

    def begin(self, memory: ChatMemory | None) -> None:
        """Another chat is shown."""
        self.memory = memory
        self._facts.clear()
        self._asked.clear()

    def compare(self, ids: Sequence[int]) -> None:
        """Let these replies to one prompt stand side by side."""
        if self.memory is not None:
            others = [g for g in self.memory.drafts if not set(g) & set(ids)]
            self.memory.keep_drafts([*others, list(ids)])

    def end(self, message_id: int) -> None:
        """One of them was kept."""
        if self.memory is not None:
            self.memory.keep_drafts([g for g in self.memory.drafts if message_id not in g])

    def shown(self, conversation: Conversation) -> tuple[int, ...]:
        """The drafts at the end of the open path, in order; empty when nothing is compared."""
        path = conversation.path()
        if self.memory is None or not path:
            return ()
        above = set(path[:-1])
        for group in self.memory.drafts:
            if above & set(group):  # the chat went on below one of them
                self.end(group[0])
            elif path[-1] in group:
                beside = conversation.tree.siblings(path[-1])
                alive = tuple(i for i in group if i in beside)
                return alive if len(alive) > 1 else ()
        return ()

    def row(
        self, conversation: Conversation, ids: Sequence[int], live: Mapping[int, Live]
    ) -> RowView:
        """The drafts as one row; their parts must be loaded."""
        cards = tuple(self.card(conversation, ids, i, live) for i in ids)
        head = conversation.head_id
        shown = next((card for card in cards if card.message_id == head), cards[0])
        return replace(
            shown,
            message_id=ids[0],
            drafts=cards,
            shown_draft=shown.message_id,
            draft=0,
            elsewhere=(),
        )

    def card(
        self,
        conversation: Conversation,
        ids: Sequence[int],
        message_id: int,
        live: Mapping[int, Live] = _NO_LIVE,
    ) -> RowView:
        """One draft."""
        facts = self._facts_of(conversation, message_id)
        count, speed = facts.tokens, facts.speed
        words = tr("draft.tokens", count=count) if count else ""
        if count and speed > 0:
            shown = QLocale().toString(float(speed), "f", 1 if speed < 100 else 0)
            words = f"{words}, {tr('composer.speed', speed=shown)}"
        view = row_of(conversation, message_id, live.get(message_id))
        return replace(
            view,
            draft=list(ids).index(message_id) + 1,
            seed=facts.seed,
            facts=words,
            elsewhere=(),
        )

    def _facts_of(self, conversation: Conversation, message_id: int) -> _Facts:
        session = self._session
        seed, tokens = session.seed(message_id), session.written(message_id)
        if seed is not None and (tokens or message_id in conversation.streaming_ids):
            return _Facts(seed, tokens, session.speed(message_id))
        if message_id not in self._facts and message_id not in self._asked:
            self._asked.add(message_id)
            if conversation.tree.node(message_id).turns:
                self._read(conversation, message_id)
        return self._facts.get(message_id, _Facts(seed, tokens, 0.0))

    def _read(self, conversation: Conversation, message_id: int) -> None:
        """What an earlier run, or the disk, knows."""

        def arrived(turns: list[dict[str, Any]]) -> None:
            if turns:
                turn = turns[-1]
                seed, times = turn.get("seed"), turn.get("times")
                tokens = turn.get("tokens_written")
                speed = times.get("tokens_per_s") if isinstance(times, dict) else 0.0
                self._facts[message_id] = _Facts(
                    seed if isinstance(seed, int) else None,
                    tokens if isinstance(tokens, int) else 0,
                    float(speed) if isinstance(speed, int | float) else 0.0,
                )
                self._changed()

        self._bridge.when_done(conversation.turns(message_id), arrived, lambda _error: None)
