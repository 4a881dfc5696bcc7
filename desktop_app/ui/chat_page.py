"""The middle of the window: one chat's path, what is being written in it, and the composer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from PySide6.QtCore import QRect, Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QStackedWidget, QVBoxLayout, QWidget

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Role, State
from desktop_app.conversation.tree import ChatChanged, PartsLoaded, Streamed
from desktop_app.errors import KnownError
from desktop_app.session import Session
from desktop_app.ui import theme
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.chat_header import ChatHeader
from desktop_app.ui.chat_memory import ChatMemory
from desktop_app.ui.composer import Composer
from desktop_app.ui.controls import line, name_control
from desktop_app.ui.empty_page import EmptyPage
from desktop_app.ui.find_bar import FindBar
from desktop_app.ui.page_drafts import PageDrafts
from desktop_app.ui.path_rows import Live, row_of, rows_of
from desktop_app.ui.row_view import RowState
from desktop_app.ui.waiting_hint import WaitingHint
from desktop_app.ui.words import tr

if TYPE_CHECKING:
    from desktop_app.ui.toast import Toast
    from desktop_app.ui.transcript import Transcript

MEASURE_PX, WIDEST_PX, GUTTER_PX, MARGIN_PX = 640, 760, 40, 24
_METER_MS = 500


class ChatPage(QWidget):
    """Shows one conversation, or the beginning of a new one.  Main thread only.

    What the user does with a message is handled by `page_verbs.PageVerbs`, which the window
    attaches; this class keeps what is shown in step with the conversation and the session.
    """

    opened = Signal(int)
    """Another chat is shown: its id, 0 for one that does not exist yet."""
    path_changed = Signal()
    """The tree, the path or a message changed: outline and history look again."""
    submitted = Signal(str)
    transcript_made = Signal()
    """The transcript, with its Markdown and maths, is made when the first chat is shown."""

    def __init__(self, session: Session, bridge: Bridge) -> None:
        super().__init__()
        self.session = session
        self.bridge = bridge
        self.conversation: Conversation | None = None
        self.memory: ChatMemory | None = None
        self._wanted = 0
        self._new_draft = ""
        self._live: dict[int, Live] = {}
        self._reading_since: dict[int, float] = {}
        self._loading_fraction = 0.0
        self._place_on_show: tuple[int, int] | None = None
        self._reveal_on_show = 0
        self._keep = 0
        self._after_end: list[Callable[[], None]] = []
        self._to_end = False
        self._from = 0
        self._compared: tuple[int, ...] = ()
        self._shown_head: int | None = None
        self.drafts = PageDrafts(session, bridge, self._look_again)
        self.setProperty("surface", "canvas")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        name_control(self, "page", tr("page.name"))
        self.header = ChatHeader()
        self.find_bar = FindBar(self._texts)
        self._transcript: Transcript | None = None
        self.empty = EmptyPage()
        self.composer = Composer()
        self.hint = WaitingHint(self, session, lambda: self.conversation, self._typed)
        self.hint.told.connect(self._tell_wait)
        self.stack = QStackedWidget()
        self.stack.addWidget(self.empty)
        self._composer_holder = QWidget()
        self._lay_out()
        self._refresh_timer = QTimer(self, interval=0, singleShot=True)
        self._refresh_timer.timeout.connect(self.refresh)
        self._meter_timer = QTimer(self, interval=_METER_MS)
        self._meter_timer.timeout.connect(self._show_meters)
        self.composer.submitted.connect(self.submitted)
        self.composer.changed.connect(self._keep_draft)
        self.composer.changed.connect(self._tell_typed)
        self.composer.changed.connect(self.hint.changed)
        self.find_bar.found.connect(self._reveal)
        self.find_bar.searched.connect(self._mark)
        self.find_bar.closed.connect(self.composer.focus_text)
        self.header.find_wanted.connect(self.find_bar.start)
        theme.current().changed.connect(self._fit_column)
        session.add_listener(self)
        self._show_empty()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.header)
        column.addWidget(line())
        column.addWidget(self.find_bar)
        column.addWidget(self.stack, 1)
        box = QVBoxLayout(self._composer_holder)
        box.setSpacing(0)
        box.addWidget(self.composer)
        box.addWidget(self.hint.line)
        column.addWidget(self._composer_holder)

    @property
    def transcript(self) -> Transcript:
        """The messages; made at the first use, after the window's first paint."""
        if self._transcript is None:
            from desktop_app.ui.transcript import Transcript

            made = self._transcript = Transcript()
            self.stack.addWidget(made)
            made.position_changed.connect(self._keep_place)
            made.again_pointed.connect(self.hint.point)
            self.transcript_made.emit()
        return self._transcript

    # ---- which chat ---------------------------------------------------------------------------

    @property
    def chat_id(self) -> int:
        """The chat that is shown; 0 for a new one."""
        return self.conversation.chat.id if self.conversation is not None else 0

    def open_chat(self, chat_id: int, message_id: int = 0) -> None:
        """Show a chat; with `message_id` the path through that message, and the message itself."""
        if chat_id == self.chat_id and self.conversation is not None:
            self._wanted = chat_id
            if message_id:
                self.go_to(message_id)
            return
        self._wanted = chat_id
        self.bridge.when_done(
            self.session.open_chat(chat_id),
            lambda conversation: self._arrived(conversation, message_id),
            self.tell_error,
        )

    def _arrived(self, conversation: Conversation, message_id: int) -> None:
        if conversation.chat.id == self._wanted:
            self.show_conversation(conversation, message_id)

    def start_new(self, draft: str = "") -> None:
        """Show the beginning of a chat that is made when the first message is sent."""
        self._wanted = 0
        self._leave()
        self.composer.set_text(draft or self._new_draft)
        self._show_empty()
        self._show_facts()
        self.opened.emit(0)
        self.composer.focus_text()

    def show_conversation(self, conversation: Conversation, message_id: int = 0) -> None:
        """Show this one, where it was read last or at `message_id`."""
        self._leave()
        self._wanted = conversation.chat.id
        self.conversation = conversation
        conversation.tree.add_watcher(self)
        memory = ChatMemory(self.session.library, self.bridge, conversation.chat.id)
        self.memory = memory
        self.drafts.begin(memory)
        self._note_waiting()
        if message_id and message_id in conversation.tree:
            conversation.set_head(conversation.tree.leaf_below(message_id))
            self._reveal_on_show = message_id

        def remembered() -> None:
            if self.memory is memory:
                self._remembered(conversation, memory)

        memory.load(remembered)
        self._show_facts()
        self.opened.emit(conversation.chat.id)

    def _remembered(self, conversation: Conversation, memory: ChatMemory) -> None:
        if not self.composer.text.toPlainText():
            self.composer.set_text(memory.draft)
        if conversation.head_id is not None and not self._reveal_on_show:
            self._place_on_show = memory.place(conversation.head_id)
            self._to_end = self._place_on_show is None
        self.refresh()
        if not self._reveal_on_show:
            self.composer.focus_text()

    def _leave(self) -> None:
        """Keep what is unsaved of the chat that was shown."""
        self._refresh_timer.stop()
        if self.conversation is None:
            self._new_draft = self.composer.text.toPlainText()
        else:
            self._keep_draft()
            self._keep_place()
            self.conversation.tree.remove_watcher(self)
        if self.memory is not None:
            self.memory.flush()
        if self.conversation is not None:
            self.session.close_chat(self.conversation.chat.id)
        self.conversation = None
        self.memory = None
        self.drafts.begin(None)
        self._compared = ()
        self.hint.point(0)
        self.hint.changed(elsewhere=True)
        self._live.clear()
        self._reading_since.clear()
        self._shown_head = None
        self.find_bar.dismiss()
        self.composer.clear()
        if self._transcript is not None:
            self._transcript.set_rows([])

    def _mark(self, words: str) -> None:
        if self._transcript is not None:
            self._transcript.set_find(words)

    def flush(self) -> None:
        """Write what is unsaved; called before the window closes."""
        if self.conversation is not None:
            self._keep_draft()
            self._keep_place()
        if self.memory is not None:
            self.memory.flush()

    @property
    def new_draft(self) -> str:
        """Unsent text of the chat that does not exist yet."""
        return self.composer.text.toPlainText() if self.conversation is None else self._new_draft

    @new_draft.setter
    def new_draft(self, text: str) -> None:
        self._new_draft = text
        if self.conversation is None:
            self.composer.set_text(text)

    def forget_new_draft(self) -> None:
        """The first message was sent."""
        self._new_draft = ""

    # ---- what is shown ------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show the path as it is now; texts that are not in memory are read first."""
        self._refresh_timer.stop()
        conversation = self.conversation
        if conversation is None:
            return
        path = [*conversation.path(), *self.drafts.shown(conversation)]
        if all(conversation.tree.is_loaded(node_id) for node_id in path):
            self._show_path(conversation)
            return

        def loaded(_: None) -> None:
            if self.conversation is conversation:
                self.refresh()

        self.bridge.when_done(conversation.need(path), loaded, self.tell_error)

    def _show_path(self, conversation: Conversation) -> None:
        if conversation.head_id != self._shown_head:
            self._keep_place()  # the transcript still shows the branch that is left
        rows = rows_of(conversation, self._live)
        compared = self._compared = self.drafts.shown(conversation)
        if compared:
            rows[-1] = self.drafts.row(conversation, compared, self._live)
        self.transcript.set_rows(rows, keep=self._keep)
        self._keep = 0
        self._shown_head = conversation.head_id
        if rows:
            self.stack.setCurrentWidget(self.transcript)
            self._place()
        else:
            self._show_empty()
        self._show_facts()
        self.path_changed.emit()

    def _place(self) -> None:
        if self._reveal_on_show:
            self.transcript.reveal(self._reveal_on_show)
        elif self._place_on_show is not None:
            self.transcript.set_position(*self._place_on_show)
        elif self._from:
            self.transcript.show_from(self._from)
        elif self._to_end:
            self.transcript.scroll_to_end()
        self._reveal_on_show, self._place_on_show, self._to_end, self._from = 0, None, False, 0

    def _show_empty(self) -> None:
        self.stack.setCurrentWidget(self.empty)

    def _show_facts(self) -> None:
        conversation = self.conversation
        self.header.show_title(conversation.chat.title if conversation else "")
        self.header.set_chat_tools(conversation is not None)
        self.composer.text.setPlaceholderText(self._placeholder(conversation))
        self.composer.text.update_placeholder()
        self._show_meters()

    def _placeholder(self, conversation: Conversation | None) -> str:
        """With drafts side by side it says on which of them a message follows."""
        compared = self.drafts.shown(conversation) if conversation is not None else ()
        if conversation is not None and conversation.head_id in compared:
            number = compared.index(conversation.head_id) + 1
            return tr("composer.placeholder_draft", number=number)
        return tr("composer.placeholder")

    def _show_meters(self) -> None:
        """Stop or Send, the speed, and how full the context is."""
        conversation = self.conversation
        writing = self.session.writing(conversation.chat.id) if conversation else ()
        self.composer.set_writing(bool(writing))
        if writing and not self._meter_timer.isActive():
            self._meter_timer.start()
        elif not writing:
            self._meter_timer.stop()
        if conversation is None:
            self.composer.show_speed(0.0)
            self.composer.show_context(0, 0)
            return
        head = conversation.head_id
        speeds = [self.session.speed(i) for i in writing] if writing else []
        if not writing and head is not None:
            speeds = [self.session.speed(head)]
        self.composer.show_speed(sum(speeds))
        self.composer.show_context(*self.session.context_use(conversation))

    def keep_in_place(self, message_id: int) -> None:
        """At the next refresh this message stays where it is on screen."""
        self._keep = message_id

    def compare(self, ids: Sequence[int]) -> None:
        """Show these replies to one prompt side by side, from their beginning."""
        self.drafts.compare(ids)
        self._from = ids[0]
        self._refresh_timer.start()

    def _look_again(self) -> None:
        self._refresh_timer.start()

    def _tell_wait(self, message_id: int, words: str) -> None:
        row = self.transcript.row_of(message_id)
        if row is not None:
            row.header.tell_wait(words)

    def _typed(self) -> str:
        return self.composer.text.toPlainText()

    def follow_end(self) -> None:
        """At the next refresh the view goes to the end and stays there while it grows."""
        self._to_end = True
        self._refresh_timer.start()

    def go_to(self, message_id: int) -> None:
        """Show the path through a message, and the message itself."""
        conversation = self.conversation
        if conversation is None or message_id not in conversation.tree:
            return
        if message_id not in conversation.path():
            self._keep_place()
            conversation.choose_version(message_id)
        self._reveal_on_show = message_id
        self.refresh()

    def go_to_head(self, node_id: int) -> None:
        """Show a version: the leaf and the place last read below it."""
        conversation = self.conversation
        if conversation is None or node_id not in conversation.tree:
            return
        self._keep_place()
        conversation.choose_version(node_id)
        head = conversation.head_id
        place = self.memory.place(head) if self.memory is not None and head is not None else None
        self._place_on_show = place
        if place is None:
            self._reveal_on_show = node_id
        self.refresh()

    def tell_error(self, error: KnownError) -> None:
        """One sentence at the bottom."""
        self.toast.tell(error.sentence, icon="circle-alert")

    def _reveal(self, message_id: int) -> None:
        self.transcript.reveal(message_id)

    def _texts(self) -> list[tuple[int, str]]:
        conversation = self.conversation
        if conversation is None:
            return []
        return [(node_id, conversation.tree.text(node_id)) for node_id in conversation.path()]

    # ---- what is kept -------------------------------------------------------------------------

    def _keep_draft(self) -> None:
        if self.memory is not None:
            self.memory.keep_draft(self.composer.text.toPlainText())

    def _tell_typed(self) -> None:
        self.session.typed(self.conversation, self.composer.text.toPlainText())

    def _keep_place(self) -> None:
        if self.memory is not None and self._shown_head is not None:
            message_id, offset_px = self.transcript.position()
            if message_id:
                self.memory.keep_place(self._shown_head, message_id, offset_px)

    # ---- told by the conversation -------------------------------------------------------------

    def before(self, change: object) -> None:
        """The tree is about to change."""

    def after(self, change: object) -> None:
        """The tree has changed: show it after the whole step."""
        if isinstance(change, ChatChanged):
            self._show_facts()
        elif not isinstance(change, Streamed | PartsLoaded):
            self._refresh_timer.start()
            self.hint.changed(elsewhere=True)

    # ---- told by the session ------------------------------------------------------------------

    def _mine(self, chat_id: int) -> Conversation | None:
        return self.conversation if chat_id == self.chat_id else None

    def loading(self, fraction: float) -> None:
        """Weights are being read: replies that wait show it."""
        self._loading_fraction = fraction
        for message_id, live in tuple(self._live.items()):
            if live.state is RowState.LOADING:
                self._show_live(message_id, replace(live, fraction=fraction))

    def waiting(self, chat_id: int, message_id: int) -> None:
        """A reply waits for the weights or for another reply."""
        if self._mine(chat_id) is None:
            return
        state = RowState.LOADING if self.session.is_loading else RowState.READING
        self._show_live(message_id, Live(state, fraction=self._loading_fraction))
        self._show_meters()

    def reading(self, chat_id: int, message_id: int, done: int, total: int, kept: int) -> None:
        """The prompt is being read."""
        if self._mine(chat_id) is None:
            return
        now = time.monotonic()
        since = self._reading_since.setdefault(message_id, now)
        state = RowState.READING if done < total else RowState.WRITING
        live = Live(state, done=done, total=total, kept=kept, seconds=now - since)
        self._show_live(message_id, live)
        if not self._meter_timer.isActive():
            self._show_meters()

    def text_changed(self, chat_id: int, message_id: int) -> None:
        """A reply has grown."""
        conversation = self._mine(chat_id)
        if conversation is None:
            return
        live = self._live.get(message_id)
        if live is None or live.state is not RowState.WRITING:
            self._show_live(message_id, replace(live or Live(), state=RowState.WRITING))
        if message_id in self._compared:
            card = self.drafts.card(conversation, self._compared, message_id, self._live)
            self.transcript.stream_draft(card)
            return
        tree = conversation.tree
        self.transcript.stream(message_id, tree.text(message_id), tree.reasoning(message_id))

    def finished(self, chat_id: int, message_id: int) -> None:
        """A reply is complete or stopped: the row itself comes with the conversation's change."""
        if self._mine(chat_id) is not None:
            self._forget_live(message_id)

    def failed(self, chat_id: int, message_id: int, _error: KnownError) -> None:
        """A reply failed: its row says so."""
        if self._mine(chat_id) is not None:
            self._forget_live(message_id)

    def loaded(self, _info: object) -> None:
        """The weights are ready: the meter's size is known."""
        self._show_meters()
        self.hint.changed(elsewhere=True)

    def unloaded(self) -> None:
        """The weights are gone."""
        self._show_meters()

    def after_next_end(self, action: Callable[[], None]) -> None:
        """Run `action` once, after the next reply of this chat has ended."""
        self._after_end.append(action)

    def _forget_live(self, message_id: int) -> None:
        self._live.pop(message_id, None)
        self._reading_since.pop(message_id, None)
        self._refresh_timer.start()
        self.hint.changed(elsewhere=True)
        waiting, self._after_end = self._after_end, []
        for action in waiting:
            self.bridge.post(action)

    def _show_live(self, message_id: int, live: Live) -> None:
        self._live[message_id] = live
        conversation = self.conversation
        if conversation is None or message_id not in conversation.tree:
            return
        compared = self.drafts.shown(conversation)
        if message_id in compared:
            # Reading is told for each draft in turn: shown once, after the last of them.
            if live.state is RowState.WRITING or message_id == max(self._live.keys() & compared):
                self.transcript.update_row(self.drafts.row(conversation, compared, self._live))
        elif message_id in conversation.path():
            self.transcript.update_row(row_of(conversation, message_id, live))

    def _note_waiting(self) -> None:
        """Replies that were being written before the chat was opened here."""
        conversation = self.conversation
        assert conversation is not None
        for message_id in self.session.writing(conversation.chat.id):
            has_text = bool(conversation.tree.text(message_id))
            state = RowState.WRITING if has_text else RowState.READING
            self._live[message_id] = Live(state)

    # ---- layout -------------------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_column()

    def _fit_column(self) -> None:
        # The column of the transcript (row_content.column_in), without loading it for that.
        scale = max(1.0, theme.current().text_scale)
        measure = min(WIDEST_PX, MEASURE_PX * scale) + GUTTER_PX
        width = int(max(200.0, min(self.width() - 2 * MARGIN_PX, measure)))
        side = max(MARGIN_PX, (self.width() - width) // 2)
        box = self._composer_holder.layout()
        assert box is not None
        box.setContentsMargins(side, 8, self.width() - width - side, 0)
        self.hint.line.setContentsMargins(17, 0, 17, 0)
        self.put_toast()

    @cached_property
    def toast(self) -> Toast:
        """Notices; made with the first one."""
        from desktop_app.ui.toast import Toast

        return Toast(self, self.toast_area)

    def put_toast(self) -> None:
        """The area changed: what is shown goes along."""
        if "toast" in self.__dict__:
            self.toast.put()

    def toast_area(self) -> QRect:
        """Where notices stand: above the composer."""
        top = self.header.height()
        return QRect(0, top, self.width(), self._composer_holder.y() - top + 8)


def last_of(conversation: Conversation, role: Role) -> int:
    """The last message of a role on the open path; 0 when there is none."""
    for node_id in reversed(conversation.path()):
        if conversation.tree.node(node_id).role is role:
            return node_id
    return 0


def can_go_on(conversation: Conversation, node_id: int) -> bool:
    """Whether a reply can be continued."""
    node = conversation.tree.node(node_id)
    return node.role is Role.ASSISTANT and node.state is not State.STREAMING
