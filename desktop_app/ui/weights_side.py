"""Brings the weights page, the connections and the first start into the window, when wanted.

The weights room opens when somebody looks at it, or when downloads of an earlier run wait: a start
that needs none of it pays for none of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer
from PySide6.QtWidgets import QHBoxLayout, QStackedWidget, QWidget

from desktop_app.errors import KnownError
from desktop_app.session import Session
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.chat_page import ChatPage
from desktop_app.ui.sidebar import Sidebar
from desktop_app.ui.sides import Sides
from desktop_app.ui.weights_desk import WeightsDesk
from desktop_app.ui.words import tr

if TYPE_CHECKING:
    from desktop_app.inference.protocol import LoadedWeights
    from desktop_app.ui.connections_panel import ConnectionsPanel
    from desktop_app.ui.first_run import FirstRun
    from desktop_app.ui.weights_page import WeightsPage
    from desktop_app.ui.weights_store import WeightsStore
    from desktop_app.weights.downloads import Download
    from desktop_app.weights.fit import Device
    from desktop_app.weights.room import WeightsRoom
    from desktop_app.weights.shelf import Entry

_LATER_MS = 1500


class WeightsSide(QObject):
    """Main thread only.  One of its session's listeners."""

    def __init__(
        self,
        window: QWidget,
        session: Session,
        bridge: Bridge,
        middle: QStackedWidget,
        dock: QWidget,
    ) -> None:
        """`middle` holds the chat page; `dock` is what stands at the right of a chat."""
        super().__init__(window)
        self._window = window
        self._session = session
        self._bridge = bridge
        self.middle = middle
        self.right = QStackedWidget()
        self.right.addWidget(dock)
        self.root = QStackedWidget()
        self._store: WeightsStore | None = None
        self._page: WeightsPage | None = None
        self._panel: ConnectionsPanel | None = None
        self._first: FirstRun | None = None
        self._sidebar: Sidebar
        self._chat: ChatPage
        self._desk: WeightsDesk
        self._sides: Sides
        self._chat_after_load = False
        self._closed = False
        self.make_room: Callable[[], WeightsRoom] = self._room

    def join(self, sidebar: Sidebar, chat: ChatPage, desk: WeightsDesk, sides: Sides) -> None:
        """The rest of the window, once it is there."""
        self._sidebar, self._chat, self._desk, self._sides = sidebar, chat, desk, sides
        self.root.addWidget(sides)
        self._session.add_listener(self)
        self._session.settings.add_watcher(self._setting_changed)
        sidebar.connection.clicked.connect(self.show_connections)
        # Seen everywhere: while the sidebar is hidden a small twin stands in the page's corner.
        self._chat_corner = sidebar.connection.twin("header.connections")
        row = chat.header.layout()
        assert isinstance(row, QHBoxLayout)
        row.insertWidget(1, self._chat_corner)
        self._chat_corner.hide()
        sidebar.list.chosen.connect(lambda *_ids: self.show_chat())
        chat.opened.connect(lambda _id: self.show_chat())
        sides.changed.connect(self._sides_changed)

    # ---- beginning and end -----------------------------------------------------------------------

    def begin(self) -> None:
        """After the first paint: the first start's page, or what an earlier run left unfinished."""
        self._show_line()
        self._sides_changed()
        if self._desk.first_run and not self._session.settings.window.get("chat"):
            self._bridge.when_done(self._session.library.chats(), self._maybe_first)
        elif _has_unfinished(self._session.profile.root):
            QTimer.singleShot(_LATER_MS, self, self._open_room)

    def _open_room(self) -> None:
        if not self._closed:
            self.store.start()

    def close(self) -> None:
        """Stop downloads (they go on at the next start) and wait for the threads."""
        self._closed = True
        if self._store is not None:
            self._store.close()

    @property
    def store(self) -> WeightsStore:
        """The page's state; made at the first use."""
        if self._store is None:
            from desktop_app.ui.weights_store import WeightsStore

            made = self._store = WeightsStore(self._bridge, self.make_room, self._facts, self)
            made.changed.connect(self._show_line)
            made.connections_changed.connect(self._show_connections)
            made.finished.connect(self._download_ended)
        return self._store

    def _room(self) -> WeightsRoom:
        from desktop_app.weights.room import WeightsRoom

        return WeightsRoom(self._session.profile.root, offline=self._session.settings.offline)

    def _facts(self) -> tuple[int, tuple[Device, ...]]:
        from desktop_app.weights.fit import Device

        loaded, hello = self._session.engine.loaded, self._session.engine.hello
        held = loaded.memory_bytes if loaded is not None else 0
        devices = hello.devices if hello is not None else ()
        return held, tuple(Device(d.name, d.free_bytes) for d in devices if d.kind != "cpu")

    # ---- pages -------------------------------------------------------------------------------

    @property
    def page(self) -> WeightsPage:
        """The weights page; made at the first use."""
        if self._page is None:
            from desktop_app.ui.weights_page import WeightsPage

            made = self._page = WeightsPage(
                self.store,
                self._in_use,
                self._sidebar.connection.twin("weights.connections"),
                self._used,
            )
            made.load_wanted.connect(self.load)
            made.left.connect(self._left)
            made.tell = lambda text: self._chat.toast.tell(text, icon="circle-alert")
            made.dock_wanted.connect(lambda: self._sides.show_dock(True))
            made.sidebar_wanted.connect(lambda: self._sides.show_sidebar(True))
            made.settings_wanted.connect(self._own_settings)
            made.online_wanted.connect(lambda: self._offline_chosen(False))
            self.middle.addWidget(made)
        return self._page

    @property
    def panel(self) -> ConnectionsPanel:
        """Switch and log; made at the first use."""
        if self._panel is None:
            from desktop_app.ui.connections_panel import ConnectionsPanel

            made = self._panel = ConnectionsPanel()
            made.hide_wanted.connect(lambda: self._sides.show_dock(False))
            made.offline_chosen.connect(self._offline_chosen)
            made.clear_wanted.connect(self._clear_log)
            self.right.addWidget(made)
        return self._panel

    @property
    def is_shown(self) -> bool:
        """Whether the weights page is in the middle."""
        return self._page is not None and self.middle.currentWidget() is self._page

    def show_page(self) -> None:
        """Show the weights page, with the connections beside it."""
        self.leave_first_run()
        page, panel = self.page, self.panel
        if self.store.room is None:
            self.store.start()
        elif not self.is_shown:
            # Memory comes and goes: a page that opens tells what is free now.
            self.store.judge_again(settle=self.store.is_outdated)
        self.middle.setCurrentWidget(page)
        self.right.setCurrentWidget(panel)
        self._move_toast(page)
        self._sides.close_overlay()
        self._sides_changed()
        self._show_connections()
        page.search.setFocus()

    def show_connections(self) -> None:
        """Show the weights page and put the focus on the offline switch."""
        self.show_page()
        self._sides.show_dock(True)
        self.panel.switch.setFocus()

    def show_chat(self) -> None:
        """Show the chat again."""
        self.leave_first_run()
        if self.is_shown:
            self.middle.setCurrentWidget(self._chat)
            self.right.setCurrentIndex(0)
            self._move_toast(self._chat)

    def _left(self) -> None:
        self.show_chat()
        self._chat.composer.focus_text()

    def _move_toast(self, page: WeightsPage | FirstRun | ChatPage) -> None:
        self._chat.toast.move_to(page, page.toast_area)

    def _sides_changed(self) -> None:
        self._chat_corner.setVisible(not self._sides.sidebar_shown)
        if self._page is not None:
            self._page.sidebar_button.setVisible(not self._sides.sidebar_shown)
            self._page.corner.setVisible(not self._sides.sidebar_shown)
            self._page.dock_button.setVisible(not self._sides.dock_shown)
            self._page.refresh()

    # ---- first start -------------------------------------------------------------------------

    def _maybe_first(self, chats: Sequence[object]) -> None:
        if not chats and self._desk.first_run and not self._closed and not self.is_shown:
            self.show_first_run()

    def show_first_run(self) -> None:
        """The three ways to begin."""
        from desktop_app.ui.first_run import FirstRun

        made = self._first = FirstRun(self.store, self._session.settings)
        made.guide_wanted.connect(self._begin_with_guide)
        made.get_wanted.connect(self._get_recommended)
        made.file_wanted.connect(self._begin_with_file)
        self.root.addWidget(made)
        self.root.setCurrentWidget(made)
        self._move_toast(made)
        self.store.start()
        made.focus_first()

    def leave_first_run(self) -> None:
        """Show the window itself."""
        first, self._first = self._first, None
        if first is not None:
            self.root.setCurrentWidget(self._sides)
            self._move_toast(self._chat)
            self.root.removeWidget(first)
            first.deleteLater()

    def _begin_with_guide(self) -> None:
        self.leave_first_run()
        self._desk.begin_with_guide()

    def _begin_with_file(self) -> None:
        self._desk.open_file()
        if not self._desk.first_run:
            self.leave_first_run()
            self._chat.composer.focus_text()

    def _get_recommended(self) -> None:
        found = self.store.recommended()
        self.show_page()
        if found is not None:
            self.store.queue.get(found.entry.repository, found.choice.label)

    # ---- weights -----------------------------------------------------------------------------

    def _in_use(self) -> Path | None:
        loaded = self._session.engine.loaded
        return Path(loaded.path) if loaded is not None else None

    def load(self, path: Path) -> None:
        """Load a file and go to the chat."""
        room = self.store.room
        entry = next((e for e in self.store.entries if e.path == path), None)
        if room is not None and entry is not None:
            # A file that was renamed keeps what belongs to its content.
            own = room.shelf.settings(entry)
            if own != self._session.settings.weights_own.get(path.name, {}):
                self._keep_own(path, own)
        self._desk.load(path)
        self.show_chat()
        self._chat.composer.focus_text()

    def _used(self) -> dict[str, int]:
        used = self._session.settings.weights_used
        return {path: at for path, at in used.items() if isinstance(at, int)}

    def _own_settings(self, entry: Entry) -> None:
        """Kept by the shelf for the file's content, and by name for a start without the shelf."""
        from desktop_app.ui.own_settings import OwnSettings

        room = self.store.room
        if room is None:
            return
        settings = self._session.settings
        dialog = OwnSettings(self._window, entry, room.shelf.settings(entry), settings)

        def changed(own: dict[str, Any]) -> None:
            try:
                room.shelf.set_settings(entry, own)
            except KnownError as error:
                self._chat.tell_error(error)
            self._keep_own(entry.path, own)

        def closed(_code: int) -> None:
            dialog.deleteLater()
            if self._in_use() == entry.path and dialog.was_changed:
                self._desk.load(entry.path)

        dialog.changed.connect(changed)
        dialog.finished.connect(closed)
        dialog.show()

    def _keep_own(self, path: Path, own: dict[str, Any]) -> None:
        settings = self._session.settings
        kept = {name: value for name, value in settings.weights_own.items() if name != path.name}
        settings.weights_own = {**kept, path.name: own} if own else kept
        self._session.keep_settings()

    def _download_ended(self, item: Download) -> None:
        toast = self._chat.toast
        if item.state == "done":
            self._keep_context(item)
            words = tr("weights.is_ready", title=item.title)
            toast.tell(
                words,
                tr("weights.load_now"),
                lambda: self.load(Path(item.path)),
                icon="circle-check",
            )
        elif item.error != "offline":
            from desktop_app.ui.weights_words import failure_words

            words = tr("weights.has_failed", title=item.title, reason=failure_words(item))
            toast.tell(words, tr("row.show"), self.show_page, icon="circle-alert")

    def _keep_context(self, item: Download) -> None:
        """The context length that a file was judged by before its download goes with it."""
        room, tokens = self.store.room, self.store.details.context_of(item)
        entry = next((e for e in self.store.entries if str(e.path) == item.path), None)
        if room is None or entry is None or not tokens or room.shelf.settings(entry):
            return
        own = {"context_length": tokens}
        try:
            room.shelf.set_settings(entry, own)
        except KnownError as error:
            self._chat.tell_error(error)
        self._keep_own(entry.path, own)

    # ---- connections -------------------------------------------------------------------------

    def _offline_chosen(self, offline: bool) -> None:
        self._session.settings.offline = offline
        try:
            self._session.settings.save()
        except OSError as error:
            self._chat.tell_error(
                KnownError("settings-unwritable", tr("weights.not_saved"), detail=str(error))
            )

    def _setting_changed(self, key: str) -> None:
        if key == "offline":
            if self._store is not None:
                self._store.set_offline(self._session.settings.offline)
            self._show_connections()

    def _clear_log(self) -> None:
        if self.store.room is not None:
            self.store.room.connections.clear_log()

    def _show_connections(self) -> None:
        if self._panel is not None and self._panel.isVisible():
            room = self.store.room
            self._panel.show_state(
                offline=self._session.settings.offline,
                entries=room.connections.entries() if room is not None else [],
            )
        self._show_line()

    def _show_line(self) -> None:
        """The sidebar's last line."""
        store = self._store
        running = [d for d in store.downloads if d.state in _RUNNING] if store is not None else []
        paused = [d for d in store.downloads if d.state == "paused"] if store is not None else []
        total = sum(item.total_bytes for item in running)
        share = sum(item.done_bytes for item in running) / total if total else 0.0
        self._sidebar.connection.show_state(
            offline=self._session.settings.offline,
            downloads=len(running),
            paused=len(paused),
            share=share,
            connected=bool(store is not None and store.is_connected),
        )

    # ---- told by the session -----------------------------------------------------------------

    def loading(self, _fraction: float) -> None:
        """A file that was dropped on the first start's page is one of its ways."""
        if self._first is not None and not self._desk.first_run:
            self.leave_first_run()

    def loaded(self, info: LoadedWeights) -> None:
        """Another file is in use."""
        settings = self._session.settings
        settings.weights_used = {**settings.weights_used, info.path: int(time.time() * 1000)}
        self._session.keep_settings()
        if self._page is not None:
            self._page.refresh()

    def unloaded(self) -> None:
        """None is."""
        if self._page is not None:
            self._page.refresh()


_RUNNING = ("running", "waiting", "checking", "queued")


def _has_unfinished(profile: Path) -> bool:
    """Whether downloads of an earlier run wait, told without opening the room."""
    try:
        data = json.loads((profile / "downloads.json").read_text(encoding="utf-8"))
        return any(item.get("state") != "done" for item in data["downloads"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
