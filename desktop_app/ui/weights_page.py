"""The weights page: what suits this computer, the hub, downloads, and what is here already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Final

from PySide6.QtCore import QPoint, QRect, Qt, QUrl, Signal
from PySide6.QtGui import (
    QAccessible,
    QAccessibleAnnouncementEvent,
    QDesktopServices,
    QKeyEvent,
    QPainter,
    QPaintEvent,
)
from PySide6.QtWidgets import (
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from desktop_app.errors import KnownError
from desktop_app.paths import starter_weights
from desktop_app.ui import icons, theme
from desktop_app.ui.controls import IconButton, label, line, name_control, push_button
from desktop_app.ui.rows_view import COLUMN_PX, MARGIN_PX, RowsView, RowWidget
from desktop_app.ui.weights_details import Key
from desktop_app.ui.weights_list import page_rows
from desktop_app.ui.weights_notes import DetailsRow, GateRow, NoteRow
from desktop_app.ui.weights_queue import MOVES
from desktop_app.ui.weights_rows import DownloadRow, HeadRow, LeadRow, LineRow
from desktop_app.ui.weights_store import WeightsStore
from desktop_app.ui.weights_words import facts, verdict
from desktop_app.ui.words import tr
from desktop_app.weights.catalogue import Suggestion
from desktop_app.weights.fit import size_text
from desktop_app.weights.hub import Repository
from desktop_app.weights.shelf import Entry

MAKERS: Final[dict[str, Callable[[], RowWidget]]] = {
    "head": HeadRow,
    "lead": LeadRow,
    "line": LineRow,
    "download": DownloadRow,
    "note": NoteRow,
    "gate": GateRow,
    "details": DetailsRow,
}


class _Search(QLineEdit):
    """The hub's search field, with its icon and the hub's name."""

    def __init__(self) -> None:
        super().__init__()
        self.host = ""
        self.setPlaceholderText(tr("weights.search_placeholder"))
        name_control(self, "weights.search", tr("weights.search"))
        self._restyle()
        theme.current().changed.connect(self._restyle)

    def _restyle(self) -> None:
        self.setStyleSheet("QLineEdit { padding-left: 36px; min-height: 34px; }")

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        painter = QPainter(self)
        icons.draw(painter, "search", "text2", 13, (self.height() - 16) / 2)
        if not self.text():
            look = theme.current()
            painter.setFont(look.font("small"))
            painter.setPen(look.color("text3"))
            right = self.rect().adjusted(0, 0, -13, 0)
            used = self.fontMetrics().horizontalAdvance(self.placeholderText()) + 60
            if used + painter.fontMetrics().horizontalAdvance(self.host) < self.width():
                painter.drawText(
                    right, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, self.host
                )


class WeightsPage(QWidget):
    """Shows a `WeightsStore` and asks things of it; holds nothing itself.  Main thread only."""

    load_wanted = Signal(object)
    """A weights file to load."""
    left = Signal()
    dock_wanted = Signal()
    sidebar_wanted = Signal()
    online_wanted = Signal()
    settings_wanted = Signal(object)
    """An Entry whose own settings are wanted."""

    def __init__(
        self,
        store: WeightsStore,
        in_use: Callable[[], Path | None],
        corner: QWidget,
        used: Callable[[], dict[str, int]] = dict,
    ) -> None:
        """`in_use`: the loaded file; `corner`: shown in the header while the sidebar is hidden;
        `used`: when files were loaded last, by path, in ms."""
        super().__init__()
        self._used = used
        self.corner = corner
        self.store = store
        self._in_use = in_use
        self.ask_yes: Callable[[str, str, str], bool] = self._ask_yes
        self.tell: Callable[[str], object] = lambda _text: None
        self.rows_ms = 0.0
        self.setProperty("surface", "canvas")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        name_control(self, "weights", tr("weights.title"))
        self.search = _Search()
        self.search.textChanged.connect(store.search)
        self.list = RowsView("weights.list", tr("weights.title"), MAKERS)
        self.list.acted.connect(self._acted)
        self.sidebar_button = IconButton(
            "panel-left",
            "weights.sidebar",
            tr("header.sidebar"),
            shortcut="Ctrl+B",
            on_click=self.sidebar_wanted.emit,
        )
        self.dock_button = IconButton(
            "panel-right",
            "weights.dock",
            tr("weights.show_connections"),
            shortcut="Ctrl+Shift+B",
            on_click=self.dock_wanted.emit,
        )
        self._lay_out()
        store.changed.connect(self.refresh)
        theme.current().changed.connect(self._redraw_icons)
        self.refresh()

    def _lay_out(self) -> None:
        bar = QHBoxLayout()
        bar.setContentsMargins(MARGIN_PX, 0, 10, 0)
        bar.setSpacing(4)
        bar.addWidget(self.sidebar_button)
        bar.addWidget(self.corner)
        bar.addWidget(label(tr("weights.title"), "heading"), 1)
        self._add = push_button(
            # Qt sets icon and words of a button too close.
            f" {tr('weights.add_file')}",
            "weights.add_file",
            kind="plain",
            on_click=self.choose_file,
        )
        self._add.setAccessibleName(tr("weights.add_file"))
        bar.addWidget(self._add)
        self._more = IconButton("ellipsis", "weights.more", tr("header.more"))
        self._more.clicked.connect(lambda _on=False: self._page_menu())
        bar.addWidget(self._more)
        bar.addWidget(self.dock_button)
        self._redraw_icons()
        holder = QWidget()
        holder.setFixedHeight(48)
        holder.setLayout(bar)
        self._field_row = QHBoxLayout()
        self._field_row.addWidget(self.search)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(holder)
        column.addWidget(line())
        column.addLayout(self._field_row)
        column.addWidget(self.list, 1)

    def _redraw_icons(self) -> None:
        self._add.setIcon(icons.icon("file-plus", "text2", 16))

    def resizeEvent(self, event: object) -> None:
        super().resizeEvent(event)  # type: ignore[arg-type]  # Qt hands a QResizeEvent here
        side = max(MARGIN_PX, (self.width() - COLUMN_PX) // 2)
        self._field_row.setContentsMargins(side, 12, side, 10)

    def toast_area(self) -> QRect:
        """Where notices stand: at the bottom."""
        return self.rect().adjusted(0, 0, 0, -8)

    def refresh(self) -> None:
        """Show what the store says now."""
        if not self.isVisible() and self.list.rows():
            return
        began = perf_counter()
        if self.store.room is not None and not self.search.host:
            self.search.host = self.store.room.hub.host
            self.search.update()
        self.list.set_rows(page_rows(self.store, self._in_use(), starter_weights(), self._used()))
        self.rows_ms = (perf_counter() - began) * 1000

    def showEvent(self, event: object) -> None:
        super().showEvent(event)  # type: ignore[arg-type]  # Qt hands a QShowEvent here
        self.refresh()

    def focusNextPrevChild(self, forward: bool) -> bool:
        if forward and QApplication.focusWidget() is self.search and self.list.focus_first():
            return True
        return super().focusNextPrevChild(forward)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            if self.search.text():
                self.search.clear()
                self.search.setFocus()
            else:
                self.left.emit()
        elif event.key() == Qt.Key.Key_Down and self.search.hasFocus():
            self.list.focus_first()
        else:
            super().keyPressEvent(event)

    # ---- what the rows want ------------------------------------------------------------------

    def _acted(self, key: str, what: str) -> None:
        kind, _, name = key.partition("/")
        verb, _, object_ = what.partition(" ")
        if verb == "use":
            self.load_wanted.emit(Path(object_))
        elif what == "clear":
            self.store.queue.act("clear", 0)
        elif what == "all":
            self.store.show_all = not self.store.show_all
            self.refresh()
        elif what == "online":
            self.online_wanted.emit()
        elif what == "search_again":
            self.store.search_again()
        elif verb == "files":
            self.store.ask_files_again(object_)
        elif kind == "suggestion":
            self._suggestion_acted(name, what)
        elif kind == "result":
            self.store.toggle(name)
        elif kind in ("file", "details"):
            self._file_acted(kind, name, what)
        elif kind == "gate":
            self._token(key, name)
        elif kind == "download":
            self.store.queue.act(what, int(name))
            if what in MOVES:
                self._tell_place(int(name))
        elif kind == "installed" and what == "menu":
            self._entry_menu(key, name)

    def _suggestion_acted(self, name: str, what: str) -> None:
        found = next((s for s in self.store.suggestions if s.entry.id == name), None)
        if found is None:
            return
        if what == "sizes":
            self._sizes_menu(found)
        else:
            self.store.queue.get(found.entry.repository, found.choice.label)

    def _file_acted(self, kind: str, name: str, what: str) -> None:
        """`name`: owner, repository and the file's path there, joined by slashes."""
        owner, short, file = name.split("/", 2)
        files = self.store.repositories.get(f"{owner}/{short}")
        if not isinstance(files, Repository):
            return
        item = next((item for item in files.quantisations if item.name == file), None)
        if item is None:
            return
        if what.startswith("get "):
            self.store.queue.get(files.id, item.label, item.name)
        elif what.startswith("details "):
            self.store.details.toggle(files, item)
        elif what == "again":
            self.store.details.ask(files, item)
        elif what == "context":
            row = self.list.row_widget(f"{kind}/{name}")
            if isinstance(row, DetailsRow):
                menu = self.context_menu((files.id, item.name), files.context_length)
                row.context_button.open_menu(menu)
                menu.deleteLater()

    def context_menu(self, key: Key, trained: int) -> QMenu:
        """The context lengths that a file on the hub can be judged by."""
        details = self.store.details
        menu = QMenu(self)
        name_control(menu, "weights.context_menu", tr("weights.context_choice"))
        chosen = details.contexts.get(key, 0)
        for tokens in (0, *details.contexts_of(key, trained)):
            words = tr("settings.n_tokens", count=tokens) if tokens else tr("settings.automatic")
            action = menu.addAction(words)
            action.setObjectName(f"weights.context.{tokens}")
            action.setCheckable(True)
            action.setChecked(tokens == chosen)
            action.triggered.connect(
                lambda _on=False, tokens=tokens: details.choose_context(key, tokens)
            )
        return menu

    def _tell_place(self, number: int) -> None:
        """Say where a line of the queue stands now, to those who cannot see it."""
        waiting = self.store.queue.waiting()
        if number in waiting:
            place = waiting.index(number) + 1
            words = tr("weights.moved", place=place, count=len(waiting))
            QAccessible.updateAccessibility(QAccessibleAnnouncementEvent(self, words))

    def _token(self, key: str, repository: str) -> None:
        row = self.list.row_widget(key)
        if isinstance(row, GateRow) and row.token:
            self.store.set_token(row.token, lambda: self._unlocked(repository))

    def _unlocked(self, repository: str) -> None:
        """The token is right: what failed for want of it goes on."""
        if isinstance(self.store.repositories.get(repository), KnownError):
            self.store.ask_files_again(repository)
        self.store.queue.unlocked(repository)

    # ---- menus -------------------------------------------------------------------------------

    def _open_menu(self, menu: QMenu, at: QWidget | None) -> None:
        anchor = at if at is not None else self
        menu.exec(anchor.mapToGlobal(QPoint(0, anchor.height() + 4)))
        menu.deleteLater()

    def _tool(self, key: str, action: str) -> QWidget | None:
        row = self.list.row_widget(key)
        return row.tool_button(action) if isinstance(row, LineRow) else None

    def sizes_menu(self, found: Suggestion) -> QMenu:
        """All sizes of a catalogue entry with how they would run."""
        menu = QMenu(self)
        name_control(menu, "weights.sizes_menu", tr("weights.other_sizes"))
        for choice in found.entry.quantisations:
            judged = verdict(self.store.fit_of_choice(found.entry, choice))
            words = judged.words if judged is not None else ""
            action = menu.addAction(facts(choice.label, size_text(choice.size_bytes), words))
            action.setObjectName(f"weights.size.{choice.label}")
            if judged is not None:
                action.setIcon(icons.icon(judged.icon, judged.role))
                action.setEnabled(judged.role != "clay" and not self.store.offline)
            action.triggered.connect(
                lambda _on=False, text=choice.label: self.store.queue.get(
                    found.entry.repository, text
                )
            )
        return menu

    def _sizes_menu(self, found: Suggestion) -> None:
        key = f"suggestion/{found.entry.id}"
        self._open_menu(self.sizes_menu(found), self._tool(key, "sizes"))

    def entry_menu(self, entry: Entry) -> QMenu:
        """What can be done with a file on this computer."""
        menu = QMenu(self)
        name_control(menu, "weights.entry_menu", entry.title)
        use = menu.addAction(icons.icon("play"), tr("weights.use"))
        use.setEnabled(entry.is_ready)
        use.triggered.connect(lambda: self.load_wanted.emit(entry.path))
        own = menu.addAction(icons.icon("sliders-horizontal"), tr("weights.own_settings"))
        own.setEnabled(entry.is_ready)
        own.triggered.connect(lambda: self.settings_wanted.emit(entry))
        show = menu.addAction(icons.icon("folder-open"), tr("weights.show_in_folder"))
        show.setEnabled(entry.state != "away")
        show.triggered.connect(lambda: self._show_in_folder(entry))
        running = isinstance(self.store.checking.get(str(entry.path)), float)
        words = tr("weights.stop_verify" if running else "weights.verify")
        verify = menu.addAction(icons.icon("shield-check"), words)
        verify.setEnabled(entry.state not in ("away", "incomplete"))
        verify.triggered.connect(lambda: self.store.verify(entry))
        menu.addSeparator()
        assert self.store.room is not None
        is_own = entry.path.is_relative_to(self.store.room.shelf.own_folder)
        words = tr("weights.delete" if is_own else "weights.take_off_list")
        remove = menu.addAction(icons.icon("trash-2"), words)
        remove.triggered.connect(lambda: self.remove(entry))
        keys = ("use", "own_settings", "show_in_folder", "verify", "remove")
        for action, key in zip((use, own, show, verify, remove), keys, strict=True):
            action.setObjectName(f"weights.entry.{key}")
        return menu

    def _entry_menu(self, key: str, path: str) -> None:
        entry = next((e for e in self.store.entries if str(e.path) == path), None)
        if entry is not None:
            self._open_menu(self.entry_menu(entry), self._tool(key, "menu"))

    def _page_menu(self) -> None:
        menu = QMenu(self)
        name_control(menu, "weights.page_menu", tr("header.more"))
        menu.addAction(icons.icon("folder-plus"), tr("weights.add_folder"), self.choose_folder)
        menu.addAction(icons.icon("refresh-cw"), tr("weights.look_again"), self.store.look)
        room = self.store.room
        if room is not None:
            for folder in room.shelf.folders:
                menu.addAction(
                    icons.icon("folder"),
                    tr("weights.forget_folder", name=folder.name),
                    lambda folder=folder: room.shelf.remove_folder(folder),
                )
            menu.addSeparator()
            menu.addAction(
                icons.icon("folder-open"),
                tr("weights.show_own_folder"),
                lambda: _open_folder(room.shelf.own_folder),
            )
            menu.addAction(
                icons.icon("trash-2"), tr("weights.forget_token"), self.store.forget_token
            )
        self._open_menu(menu, self._more)

    # ---- files -------------------------------------------------------------------------------

    def choose_file(self) -> None:
        """Ask for a .gguf file and list it where it lies."""
        chosen, _kind = QFileDialog.getOpenFileName(
            self, tr("weights.add_file"), "", f"{tr('menu.weights_files')} (*.gguf)"
        )
        if chosen:
            self.add_file(Path(chosen))

    def add_file(self, path: Path) -> None:
        """List a file; a sentence tells when it cannot be used."""
        self.store.add_file(path, lambda _entry: None, self._tell_error)

    def choose_folder(self) -> None:
        """Ask for a folder to watch."""
        chosen = QFileDialog.getExistingDirectory(self, tr("weights.add_folder"))
        if chosen:
            self.store.add_folder(Path(chosen), self._tell_error)

    def remove(self, entry: Entry) -> None:
        """Ask, then delete the file or take it off the list."""
        assert self.store.room is not None
        if entry.path.is_relative_to(self.store.room.shelf.own_folder):
            question = tr("weights.delete_question", title=entry.title)
            text = tr("weights.delete_text", size=size_text(entry.size_bytes))
            if not self.ask_yes(question, text, tr("weights.delete")):
                return
        self.store.remove(entry, self._tell_error)

    def _show_in_folder(self, entry: Entry) -> None:
        _open_folder(entry.path.parent)

    def _tell_error(self, error: KnownError) -> None:
        self.tell(error.sentence)

    def _ask_yes(self, question: str, text: str, yes: str) -> bool:
        box = QMessageBox(self)
        box.setWindowTitle("Grove")
        box.setText(question)
        box.setInformativeText(text)
        name_control(box, "weights.question", question)
        button = QPushButton(yes)
        button.setProperty("kind", "danger")
        name_control(button, "weights.question_yes", yes)
        box.addButton(button, QMessageBox.ButtonRole.DestructiveRole)
        keep = box.addButton(tr("trash.keep"), QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(keep)
        box.exec()
        answered = box.clickedButton() is button
        box.deleteLater()
        return answered


def _open_folder(folder: Path) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))
