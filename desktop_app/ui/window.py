"""The main window: puts sidebar, page and dock together and carries the commands between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QByteArray, QMimeData, QSize, Qt, QTimer
from PySide6.QtGui import (
    QAction,
    QCloseEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QKeyEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import QMainWindow, QMenu, QMessageBox, QStackedWidget

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import ChatInfo
from desktop_app.errors import KnownError
from desktop_app.inference.protocol import LoadedWeights
from desktop_app.session import Session
from desktop_app.ui import icons, tab_order, theme
from desktop_app.ui.actions import chat_menu, make_actions
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.chat_page import ChatPage
from desktop_app.ui.controls import name_control
from desktop_app.ui.dock import OUTLINE, SETTINGS, Dock
from desktop_app.ui.exchange_desk import ExchangeDesk
from desktop_app.ui.page_verbs import PageVerbs
from desktop_app.ui.safe_text import visible
from desktop_app.ui.sidebar import Sidebar
from desktop_app.ui.sides import Sides
from desktop_app.ui.weights_desk import WeightsDesk
from desktop_app.ui.weights_side import WeightsSide
from desktop_app.ui.words import tr
from desktop_app.version import VERSION

if TYPE_CHECKING:
    from desktop_app.ui.chat_settings import ChatSettings

_LIST_AFTER_MS = 120
_NEED_A_CHAT = ("rename", "keep_only_path", "delete_chat", "show_prompt", "export_chat", "find")
_HITS = 60
_SCALE_STEP = 0.1
_FIRST_SIZE = QSize(1280, 820)
_FRAME = QSize(16, 48)  # what a window manager's frame takes of the screen, generously


class MainWindow(QMainWindow):
    """One window on one library.  Everything slow is asked for by a future; nothing waits here."""

    def __init__(self, session: Session, bridge: Bridge) -> None:
        super().__init__()
        self.session = session
        self.settings = session.settings
        self.bridge = bridge
        self._chats: list[ChatInfo] = []
        self._writing: set[int] = set()
        self._has_messages = False
        self.setWindowTitle("Grove")
        self.setWindowIcon(icons.app_icon())
        self.setAcceptDrops(True)
        self.setMinimumSize(QSize(420, 420))
        name_control(self, "window", "Grove")
        self.sidebar = Sidebar()
        self.page = ChatPage(session, bridge)
        self.verbs = PageVerbs(self.page)
        self.files = ExchangeDesk(self, session, bridge, self.page)
        self.weights = WeightsDesk(self, session, self.sidebar, self.page)
        self.dock = Dock(self._make_chat_settings, bridge)
        self.centre = QStackedWidget()
        self.centre.addWidget(self.page)
        self.hub = WeightsSide(self, session, bridge, self.centre, self.dock)
        self.sides = Sides(self.sidebar, self.centre, self.hub.right)
        self.hub.join(self.sidebar, self.page, self.weights, self.sides)
        self.weights.open_page = self.hub.show_page
        self.setCentralWidget(self.hub.root)
        self.actions_by_key = make_actions(self, self._handlers())
        self.menuBar().setVisible(self.menuBar().isNativeMenuBar())
        self._list_timer = QTimer(self, interval=_LIST_AFTER_MS, singleShot=True)
        self._list_timer.timeout.connect(self.reload_chats)
        self._connect()
        session.add_listener(self)
        self._restore()
        self.weights.show_state()
        self.weights.show_choices()
        self._sides_changed()

    # ---- wiring ------------------------------------------------------------------------------

    def _handlers(self) -> dict[str, Callable[[], object]]:
        verbs, page = self.verbs, self.page
        return {
            "new_chat": self.new_chat,
            "open_weights": self.weights.open_file,
            "weights_page": self.hub.show_page,
            "import_chats": self.files.import_file,
            "export_chat": self.files.export_chat,
            "export_all": self.files.export_all,
            "trash": self.show_trash,
            "settings": self.show_settings,
            "quit": self.close,
            "undo": verbs.undo,
            "redo": verbs.redo,
            "ask_again": verbs.ask_again_last,
            "ask_drafts": verbs.ask_drafts_last,
            "send_drafts": verbs.send_drafts,
            "edit": verbs.edit_current,
            "previous_version": lambda: verbs.step_version(-1),
            "next_version": lambda: verbs.step_version(1),
            "stop": verbs.stop,
            "rename": self._rename_here,
            "show_prompt": lambda: verbs.with_chat(lambda c: self.show_prompt(c, None)),
            "keep_only_path": verbs.keep_only_path,
            "delete_chat": self._delete_open,
            "search": self._search,
            "find": page.find_bar.start,
            "sidebar": lambda: self.sides.show_sidebar(not self.sides.sidebar_shown),
            "dock": lambda: self.sides.show_dock(not self.sides.dock_shown),
            "outline": lambda: self._show_tab(OUTLINE),
            "chat_settings": lambda: self._show_tab(SETTINGS),
            "previous_chat": lambda: self._step_chat(-1),
            "next_chat": lambda: self._step_chat(1),
            "composer": page.composer.focus_text,
            "larger_text": lambda: self._scale(self.settings.text_scale + _SCALE_STEP),
            "smaller_text": lambda: self._scale(self.settings.text_scale - _SCALE_STEP),
            "normal_text": lambda: self._scale(1.0),
            "shortcuts": self._show_shortcuts,
            "about": self._about,
        }

    def _connect(self) -> None:
        side, page, dock = self.sidebar, self.page, self.dock
        side.new_wanted.connect(self.new_chat)
        side.hide_wanted.connect(lambda: self.sides.show_sidebar(False))
        side.settings_wanted.connect(self.show_settings)
        side.search_wanted.connect(self._find_everywhere)
        side.search_left.connect(page.composer.focus_text)
        side.card.choose_wanted.connect(self.weights.menu_at_card)
        side.card.again_wanted.connect(self.weights.load_again)
        side.list.chosen.connect(self._open_from_list)
        side.list.renamed.connect(self._rename)
        side.list.pin_wanted.connect(self._pin)
        side.list.delete_wanted.connect(self.delete_chat)
        page.opened.connect(self._opened)
        page.transcript_made.connect(self._note_messages)
        page.path_changed.connect(self._path_changed)
        page.header.sidebar_wanted.connect(lambda: self.sides.show_sidebar(True))
        page.header.dock_wanted.connect(lambda: self.sides.show_dock(True))
        page.header.make_menu = self._chat_menu
        page.composer.weights.clicked.connect(lambda: self.weights.menu_at(page.composer.weights))
        page.composer.preset.clicked.connect(self.weights.preset_menu)
        page.composer.drafts.clicked.connect(self.weights.drafts_menu)
        page.empty.suggested.connect(self._suggest)
        page.empty.guide_wanted.connect(self.weights.begin_with_guide)
        page.empty.file_wanted.connect(self.weights.open_file)
        page.empty.weights_page_wanted.connect(self.hub.show_page)
        dock.message_wanted.connect(self._go_from_outline)
        dock.hide_wanted.connect(lambda: self.sides.show_dock(False))
        self.weights.preset_chosen.connect(dock.changed)
        self.sides.changed.connect(self._sides_changed)
        self.verbs.ask_for_weights = self.weights.open_file
        self.verbs.show_prompt = self.show_prompt
        self.verbs.show_details = self.show_details
        self.verbs.chats.changed = self._chats_changed

    # ---- start and end -----------------------------------------------------------------------

    def _restore(self) -> None:
        state = self.settings.window
        geometry = state.get("geometry")
        self.resize(first_size(self.screen().availableSize()))
        if isinstance(geometry, str):
            self.restoreGeometry(QByteArray.fromBase64(QByteArray(geometry.encode())))
        sides = state.get("sides")
        self.sides.restore(sides if isinstance(sides, dict) else {})
        tab = state.get("tab")
        self.dock.tabs.setCurrentIndex(tab if tab in (OUTLINE, SETTINGS) else OUTLINE)
        draft = state.get("draft")
        if isinstance(draft, str):
            self.page.new_draft = draft

    def begin(self) -> None:
        """Read the chats, open the one that was open last, load the weights used last."""
        self.reload_chats()
        self.settings.add_watcher(self._setting_changed)
        self.session.library.watch_chats(lambda _chat: self._list_timer.start())
        last = self.settings.window.get("chat")
        if isinstance(last, int) and last > 0:
            self.bridge.when_done(
                self.session.open_chat(last),
                self._reopen,
                lambda _error: self.page.start_new(),
            )
        else:
            self.page.start_new()
        path = self.session.default_weights()
        if path is not None and self.session.engine.loaded is None and not self.session.is_loading:
            self.session.load_weights(path)
        self.weights.show_state()
        self.hub.begin()

    def _reopen(self, conversation: Conversation) -> None:
        if conversation.chat.deleted_at:
            self.page.start_new()
        elif self.page.conversation is None:
            self.page.show_conversation(conversation)

    def keep_state(self) -> None:
        """Write what the window remembers: sizes, sides, the open chat, unsent text."""
        self.page.flush()
        geometry = bytes(self.saveGeometry().toBase64().data()).decode()
        self.settings.window = {
            **self.settings.window,
            "geometry": geometry,
            "sides": self.sides.state(),
            "tab": self.dock.tabs.currentIndex(),
            "chat": self.page.chat_id,
            "draft": self.page.new_draft,
        }
        try:
            self.settings.save()
        except OSError:
            pass  # a full disk must not keep the window from closing; sizes are no loss

    def closeEvent(self, event: QCloseEvent) -> None:
        self.keep_state()
        self.hub.close()
        self.files.close()
        super().closeEvent(event)

    def raise_up(self) -> None:
        """Come to the front: a second start asked for it."""
        if self.isMinimized():
            self.showNormal()
        self.show()
        self.raise_()
        self.activateWindow()

    # ---- chats -------------------------------------------------------------------------------

    def new_chat(self) -> None:
        """Begin a chat; it exists once something is sent."""
        self.sides.close_overlay()
        self.sidebar.search.clear()
        self.page.start_new()

    def reload_chats(self) -> None:
        """Read the list of chats again."""
        self._list_timer.stop()
        self.bridge.when_done(self.session.library.chats(), self._show_chats, self.tell_error)

    def _show_chats(self, chats: list[ChatInfo]) -> None:
        self._chats = chats
        self.sidebar.show_chats(chats)
        self.sidebar.show_open(self.page.chat_id)

    def _open_from_list(self, chat_id: int, message_id: int) -> None:
        self.sides.close_overlay()
        self.page.open_chat(chat_id, message_id)

    def _opened(self, chat_id: int) -> None:
        self.sidebar.show_open(chat_id)
        if chat_id:
            self.weights.first_run = False
        self.dock.show_chat(self.page.conversation)
        self.weights.show_choices()
        self._path_changed()
        for key in _NEED_A_CHAT:
            self.actions_by_key[key].setEnabled(bool(chat_id))

    def _path_changed(self) -> None:
        conversation = self.page.conversation
        title = conversation.chat.title if conversation is not None else ""
        self.setWindowTitle(f"{visible(title)} – Grove" if title else "Grove")
        self._show_history()
        self.weights.show_empty()
        self.dock.changed()
        self._list_timer.start()

    def _show_history(self) -> None:
        self.actions_by_key["undo"].setEnabled(self.verbs.can_undo)
        self.actions_by_key["redo"].setEnabled(self.verbs.can_redo)
        self.verbs.show_history()

    def _chats_changed(self) -> None:
        """A chat went to the trash or came back."""
        self.reload_chats()
        self._show_history()

    def _rename(self, chat_id: int, title: str) -> None:
        conversation = self.session.conversation(chat_id)
        if conversation is not None:
            conversation.set_title(title)
            self._list_timer.start()
        else:
            self._then_reload(self.session.library.rename(chat_id, title))

    def _rename_here(self) -> None:
        """The chat in the list's focus, else the open one."""
        chats = self.sidebar.list
        index = chats.currentIndex()
        if chats.hasFocus() and index.isValid():
            chats.rename(self.sidebar.rows.item(index).chat_id)
        else:
            self.page.header.start_rename()

    def _pin(self, chat_id: int, pinned: bool) -> None:
        self._then_reload(self.session.library.pin(chat_id, pinned))

    def _delete_open(self) -> None:
        if self.page.chat_id:
            self.delete_chat(self.page.chat_id)

    def delete_chat(self, chat_id: int) -> None:
        """Move a chat to the trash, with Undo."""
        title = next((chat.title for chat in self._chats if chat.id == chat_id), "")
        was_open = self.page.chat_id == chat_id
        if was_open:
            self.page.start_new()

        def back() -> None:
            self._then_reload(self.session.library.restore_chat(chat_id))
            self.verbs.chats.restored(chat_id)
            if was_open:
                self.page.open_chat(chat_id)

        def deleted(_result: object) -> None:
            self.verbs.chats.deleted(chat_id, was_open=was_open)
            text = tr("page.chat_deleted", title=title or tr("chat.untitled"))
            self.page.toast.tell(text, tr("page.undo"), back)

        self.bridge.when_done(self.session.delete_chats((chat_id,)), deleted, self.tell_error)

    def _step_chat(self, step: int) -> None:
        ids = self.sidebar.chat_ids()
        if not ids:
            return
        at = ids.index(self.page.chat_id) if self.page.chat_id in ids else -1 if step > 0 else 0
        self.page.open_chat(ids[(at + step) % len(ids)])

    def _then_reload(self, future: object) -> None:
        self.bridge.when_done(future, lambda _done: self.reload_chats(), self.tell_error)  # type: ignore[arg-type]  # any future

    def _search(self) -> None:
        self.sides.show_sidebar(True)
        self.sidebar.start_search()

    def _find_everywhere(self, text: str) -> None:
        if text:
            self.bridge.when_done(
                self.session.library.search(text, _HITS),
                lambda hits: self.sidebar.show_hits(text, hits),
                self.tell_error,
            )

    def _go_from_outline(self, message_id: int, on_path: bool) -> None:
        if on_path:
            self.page.go_to(message_id)
        else:
            self.page.go_to_head(message_id)

    def _suggest(self, text: str) -> None:
        self.page.composer.set_text(text)
        self.page.composer.focus_text()

    # ---- told by the session -----------------------------------------------------------------

    def loaded(self, _info: LoadedWeights) -> None:
        """The weights are ready: the settings beside the chat say which."""
        self.dock.changed()

    def waiting(self, chat_id: int, _message_id: int) -> None:
        """A reply waits."""
        self._note_writing(chat_id)

    def reading(self, chat_id: int, _id: int, _done: int, _total: int, _kept: int) -> None:
        """A prompt is being read."""
        self._note_writing(chat_id)

    def text_changed(self, chat_id: int, _message_id: int) -> None:
        """A reply has grown."""
        self._note_writing(chat_id)

    def finished(self, chat_id: int, _message_id: int) -> None:
        """A reply is complete."""
        self._note_writing(chat_id)
        self._list_timer.start()

    def failed(self, chat_id: int, _message_id: int, _error: KnownError) -> None:
        """A reply failed."""
        self._note_writing(chat_id)

    def storage_failed(self, error: KnownError) -> None:
        """Something could not be written and was taken back."""
        self.tell_error(error)
        self.page.refresh()

    def _note_writing(self, chat_id: int) -> None:
        writing = bool(self.session.writing(chat_id))
        if writing != (chat_id in self._writing):
            (self._writing.add if writing else self._writing.discard)(chat_id)
            self.sidebar.rows.set_writing(frozenset(self._writing))

    def tell_error(self, error: KnownError) -> None:
        """One sentence in a toast."""
        self.page.tell_error(error)

    def tell_bug(self, sentence: str, trace: str) -> None:
        """Something went wrong in Grove itself; told once for each kind."""

        def details() -> None:
            box = QMessageBox(self)
            box.setWindowTitle("Grove")
            box.setText(sentence)
            box.setDetailedText(trace)
            box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            box.show()

        self.page.toast.tell(sentence, tr("app.details"), details, icon="circle-alert")

    def _setting_changed(self, key: str) -> None:
        if key in ("send_drafts", "preset", "presets"):
            self.weights.show_choices()

    # ---- other windows -----------------------------------------------------------------------

    def show_settings(self) -> None:
        """Open the settings window."""
        from desktop_app.ui.settings_window import SettingsWindow

        window = SettingsWindow(self, self.session)
        window.weights_wanted.connect(self.weights.open_file)
        window.trash_wanted.connect(self.show_trash)
        window.connections_wanted.connect(self.hub.show_connections)
        window.show()

    def show_trash(self) -> None:
        """Open the trash."""
        from desktop_app.ui.trash import TrashWindow

        window = TrashWindow(self, self.session, self.bridge)
        window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        window.changed.connect(self.reload_chats)
        window.chat_restored.connect(self.page.open_chat)
        window.show()

    def show_prompt(self, conversation: Conversation, head: int | None) -> None:
        """Show what the weights see."""
        from desktop_app.ui.prompt_window import PromptWindow

        window = PromptWindow(self, self.session, self.bridge, conversation, head)
        window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        window.show()

    def show_details(self, conversation: Conversation, node_id: int) -> None:
        """Show how a reply was made, and why it failed."""
        from desktop_app.ui.details_window import DetailsWindow

        window = DetailsWindow(self, self.bridge, conversation, node_id)
        window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        window.show()

    def _show_shortcuts(self) -> None:
        from desktop_app.ui.shortcuts_window import ShortcutsWindow

        ShortcutsWindow(self).show()

    def _make_chat_settings(self) -> ChatSettings:
        from desktop_app.ui.chat_settings import ChatSettings

        made = ChatSettings(self.session, self.verbs.with_chat, self.weights.choose_preset)
        made.weights_menu_wanted.connect(self.weights.menu_at)
        return made

    def _about(self) -> None:
        QMessageBox.about(self, "Grove", tr("app.about", version=VERSION))

    def _chat_menu(self) -> QMenu:
        chat = self.page.conversation.chat if self.page.conversation is not None else None
        pin = QAction(tr("chat.unpin" if chat is not None and chat.pinned else "chat.pin"), self)
        pin.setIcon(icons.icon("pin-off" if chat is not None and chat.pinned else "pin"))
        if chat is not None:
            pin.triggered.connect(lambda: self._pin(chat.id, not chat.pinned))
        menu = chat_menu(self, self.actions_by_key, pin=pin)
        pin.setParent(menu)
        return menu

    # ---- view --------------------------------------------------------------------------------

    def _show_tab(self, tab: int) -> None:
        self.sides.show_dock(True)
        self.dock.tabs.setCurrentIndex(tab)
        target = self.dock.outline if tab == OUTLINE else self.dock.settings.system
        target.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def _sides_changed(self) -> None:
        header = self.page.header
        header.sidebar_button.setVisible(not self.sides.sidebar_shown)
        header.dock_button.setVisible(not self.sides.dock_shown)
        if self.sides.dock_shown:
            self.dock.changed()

    def _scale(self, scale: float) -> None:
        scale = min(2.0, max(0.8, round(scale, 2)))
        self.settings.text_scale = scale
        self.session.keep_settings()
        theme.current().set_text_scale(scale)
        self.page.toast.tell(tr("page.text_size", percent=round(scale * 100)))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            if self.sides.close_overlay():
                return
            if self.page.find_bar.isVisible():
                self.page.find_bar.leave()
            elif self.page.composer.writing:
                self.verbs.stop()
            else:
                self.page.toast.dismiss()
        elif event.key() == Qt.Key.Key_F10 and not event.modifiers():
            self.menuBar().setVisible(not self.menuBar().isVisible())
        else:
            super().keyPressEvent(event)

    def focusNextPrevChild(self, forward: bool) -> bool:
        page = self.page
        if not page.isVisible():
            return super().focusNextPrevChild(forward)
        areas: list[tab_order.Area] = [(self.sidebar, None), (page.header, None)]
        areas.append((page.find_bar, None))
        if self._has_messages:  # asking the page for them would make them
            areas.append((page.transcript, self._enter_messages))
        areas += [(page.composer, None), (self.hub.right, None)]
        return tab_order.step(areas, forward=forward) or super().focusNextPrevChild(forward)

    def _enter_messages(self) -> bool:
        rows = self.page.transcript
        if rows.rows and not rows.keys.focus_editor():
            rows.focus_current()
        return bool(rows.rows)

    def _note_messages(self) -> None:
        self._has_messages = True

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.page.put_toast()

    # ---- files dropped on the window -----------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        path = _weights_in(event.mimeData())
        if path is not None:
            event.acceptProposedAction()
            self.page.toast.tell(tr("page.drop", name=path.name), icon="file-up")

    def dragLeaveEvent(self, _event: QDragLeaveEvent) -> None:
        self.page.toast.dismiss()

    def dropEvent(self, event: QDropEvent) -> None:
        path = _weights_in(event.mimeData())
        if path is not None:
            event.acceptProposedAction()
            self.page.toast.dismiss()
            self.weights.load(path)


def first_size(available: QSize) -> QSize:
    """The size of a first window on a screen with this much room, its frame not counted."""
    return _FIRST_SIZE.boundedTo(available - _FRAME)


def _weights_in(data: QMimeData) -> Path | None:
    for url in data.urls():
        if url.isLocalFile() and url.toLocalFile().lower().endswith(".gguf"):
            return Path(url.toLocalFile())
    return None
