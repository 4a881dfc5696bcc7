"""The right side: the outline of the chat, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QStackedWidget, QTabBar, QVBoxLayout, QWidget

from desktop_app.conversation.document import Conversation
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.controls import IconButton, label, line, name_control
from desktop_app.ui.outline import Outline, points_of
from desktop_app.ui.words import tr

if TYPE_CHECKING:
    from desktop_app.ui.chat_settings import ChatSettings

OUTLINE, SETTINGS = 0, 1


class Dock(QWidget):
    """Two tabs.  It reads the conversation and changes nothing itself."""

    message_wanted = Signal(int, bool)
    hide_wanted = Signal()

    def __init__(self, make_settings: Callable[[], ChatSettings], bridge: Bridge) -> None:
        """`make_settings` is called when the settings are looked at first."""
        super().__init__()
        self._make_settings = make_settings
        self._settings: ChatSettings | None = None
        self._bridge = bridge
        self._conversation: Conversation | None = None
        self.setProperty("surface", "window")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        name_control(self, "dock", tr("dock.name"))
        self.tabs = QTabBar()
        self.tabs.setDrawBase(False)
        self.tabs.setExpanding(False)
        name_control(self.tabs, "dock.tabs", tr("dock.name"))
        self.tabs.addTab(tr("dock.outline"))
        self.tabs.addTab(tr("dock.settings"))
        self.outline = Outline()
        self.outline.chosen.connect(self.message_wanted)
        self._summary = label("", "small")
        name_control(self._summary, "dock.summary", "")
        self._hint = label(tr("outline.hint"), "secondary", wrap=True)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._outline_page())
        self.tabs.currentChanged.connect(self._show_tab)
        head = QHBoxLayout()
        head.setContentsMargins(18, 0, 10, 0)
        head.addWidget(self.tabs, 1)
        self.hide_button = IconButton(
            "panel-right",
            "dock.hide",
            tr("dock.hide"),
            shortcut="Ctrl+Shift+B",
            on_click=self.hide_wanted.emit,
        )
        head.addWidget(self.hide_button)
        holder = QWidget()
        holder.setFixedHeight(48)
        holder.setLayout(head)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(holder)
        column.addWidget(line())
        column.addWidget(self._stack, 1)
        self._timer = QTimer(self, interval=80, singleShot=True)
        self._timer.timeout.connect(self._show)

    @property
    def settings(self) -> ChatSettings:
        """The chat's settings; made at the first use."""
        if self._settings is None:
            self._settings = self._make_settings()
            self._stack.addWidget(self._settings)
            self._settings.show_chat(self._conversation)
        return self._settings

    def _show_tab(self, tab: int) -> None:
        if tab == SETTINGS:
            self._stack.setCurrentWidget(self.settings)
        else:
            self._stack.setCurrentIndex(0)

    def _outline_page(self) -> QWidget:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(0, 10, 0, 8)
        column.setSpacing(6)
        summary = QHBoxLayout()
        summary.setContentsMargins(18, 0, 18, 2)
        summary.addWidget(self._summary)
        column.addLayout(summary)
        hint = QHBoxLayout()
        hint.setContentsMargins(18, 6, 18, 6)
        hint.addWidget(self._hint)
        column.addLayout(hint)
        column.addWidget(self.outline, 1)
        return page

    def show_chat(self, conversation: Conversation | None) -> None:
        """Follow this chat; None for one that does not exist yet."""
        self._conversation = conversation
        if self._settings is not None:
            self._settings.show_chat(conversation)
        self.changed()

    def changed(self) -> None:
        """The tree or the path changed: look again soon, once for many changes."""
        if self.isVisible():
            self._timer.start()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._timer.start()

    def _show(self) -> None:
        conversation = self._conversation
        if self._settings is not None:
            self._settings.refresh()
        if conversation is None:
            self.outline.show_points([])
            self._summary.setText("")
            self._hint.setVisible(True)
            return
        points = points_of(conversation)
        forks = any(point.versions > 1 or point.starred for point in points)
        self.outline.show_points(points if forks else [])
        self._hint.setVisible(not forks)
        others = len(conversation.tree) - len(conversation.path())
        key = "outline.summary" if others else "outline.summary_path"
        self._summary.setText(tr(key, count=len(conversation.path()), others=others))
        self._summary.setAccessibleName(self._summary.text())
        self._load_labels([point.message_id for point in points])

    def _load_labels(self, ids: list[int]) -> None:
        """Read the first words of versions that were never shown, then show them."""
        conversation = self._conversation
        assert conversation is not None
        if all(conversation.tree.is_loaded(node_id) for node_id in ids):
            return

        def loaded(_: None) -> None:
            if self._conversation is conversation:
                self._timer.start()

        self._bridge.when_done(conversation.need(ids), loaded)
