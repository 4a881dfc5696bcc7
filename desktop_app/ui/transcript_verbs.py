"""What the controls of a row do: signals for others, and what the transcript does itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QMenu

from desktop_app.ui.markdown import openable
from desktop_app.ui.row_content import GUTTER
from desktop_app.ui.row_menu import add_draft_counts, message_menu
from desktop_app.ui.row_view import EditMode, RowView
from desktop_app.ui.words import tr

if TYPE_CHECKING:
    from desktop_app.ui.row import Row
    from desktop_app.ui.transcript import Transcript


class Verbs:
    """Carries out verbs for one transcript and keeps the texts of its open editors."""

    def __init__(self, view: Transcript) -> None:
        self._view = view
        self.drafts: dict[int, str] = {}
        self._signals: dict[str, Callable[[int], None]] = {
            "again": view.again_requested.emit,
            "continue": view.continue_requested.emit,
            "copy_to_chat": view.copy_to_chat_requested.emit,
            "delete": view.delete_requested.emit,
            "details": view.details_requested.emit,
            "keep_draft": view.keep_draft_requested.emit,
            "keep_path": view.keep_path_requested.emit,
            "retry": view.retry_requested.emit,
            "show_draft": view.show_draft_requested.emit,
            "show_prompt": view.show_prompt_requested.emit,
            "stop": view.stop_requested.emit,
            "stop_drafts": view.stop_drafts_requested.emit,
        }

    def act(self, row: RowView, verb: str, value: object) -> None:
        """Do what a row's control asks for."""
        view, message_id = self._view, row.message_id
        if verb in self._signals:
            self._signals[verb](message_id)
        elif verb == "star":
            view.star_requested.emit(message_id, not row.starred)
        elif verb == "version" and isinstance(value, int):
            if 1 <= value <= row.versions:
                view.version_requested.emit(message_id, value)
        elif verb == "drafts":
            view.drafts_requested.emit(message_id, value if isinstance(value, int) else 0)
        elif verb == "point_again":
            view.again_pointed.emit(message_id if value else 0)
        elif verb == "failure":
            view.failure_action.emit(message_id, str(value))
        else:
            self._act_here(row, verb, value)

    def _act_here(self, row: RowView, verb: str, value: object) -> None:
        view, message_id = self._view, row.message_id
        if verb == "copy":
            QGuiApplication.clipboard().setText(row.text)
            view.copy_requested.emit(message_id)
        elif verb == "copy_selection":
            view.copy_selection()
        elif verb == "select_all":
            view.select_all()
        elif verb == "edit":
            self.start_editing(message_id)
        elif verb == "cancel":
            self._end_editing(message_id)
        elif verb == "save" and isinstance(value, tuple):
            self._end_editing(message_id)
            view.edit_saved.emit(message_id, str(value[0]), EditMode(value[1]).value)
        elif verb == "copy_code" and isinstance(value, int):
            view.copy_code(message_id, value)
        elif verb == "link" and openable(str(value)):
            view.link_activated.emit(str(value))
        elif verb == "fold":
            self._fold(message_id)
        elif verb == "elsewhere":
            self._show_elsewhere(row)
        elif verb == "more":
            self._open_more(message_id)
        elif verb == "drafts_menu":
            self._open_drafts(message_id)

    def _fold(self, message_id: int) -> None:
        content = self._view.content_of(message_id)
        if content is None:
            return
        self._view.stay_here()
        content.reasoning_open = not content.reasoning_open
        row = self._view.row_of(message_id)
        if row is not None:
            row.refresh()
            row.update()
        self._view.relayout()

    # Menus

    def open_menu(self, message_id: int, at: QPoint) -> None:
        """The menu of a message at a global point."""
        view = self._view
        row = view.view_of(message_id)
        if row is None:
            return
        content = view.content_of(message_id)
        menu = message_menu(
            view,
            row,
            lambda verb, value: view.act(message_id, verb, value),
            selection=not view.selection.is_empty,
            links=content.links_of(message_id) if content is not None else (),
            codes=content.codes_of(message_id) if content is not None else (),
            drafts=view.draft_count,
        )
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(at)

    def _open_more(self, message_id: int) -> None:
        row = self._view.row_of(self._view.row_id(message_id))
        if row is not None:
            button = row.more_button(message_id)
            self.open_menu(message_id, button.mapToGlobal(QPoint(0, button.height() + 2)))

    def _open_drafts(self, message_id: int) -> None:
        """The numbers behind the arrow of Ask again ×3."""
        row = self._view.row_of(message_id)
        if row is None:
            return
        menu = QMenu(self._view)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        add_draft_counts(
            menu, self._view.draft_count, lambda count: self._view.act(message_id, "drafts", count)
        )
        button = row.header.buttons["count"]
        menu.popup(button.mapToGlobal(QPoint(0, button.height() + 2)))

    def _show_elsewhere(self, row: RowView) -> None:
        """Go to the other version that goes on, or list them when there are several."""
        view = self._view
        if len(row.elsewhere) == 1:
            view.elsewhere_requested.emit(row.message_id, row.elsewhere[0].version)
            return
        menu = QMenu(view)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for other in row.elsewhere:
            words = tr("row.elsewhere_version", version=other.version, count=other.messages)
            action = menu.addAction(words)
            action.triggered.connect(
                lambda _on=False, version=other.version: view.elsewhere_requested.emit(
                    row.message_id, version
                )
            )
        widget, content = view.row_of(row.message_id), view.content_of(row.message_id)
        if widget is not None and content is not None:
            corner = QPoint(round(widget.left + GUTTER), round(content.boxes.notice_top) + 22)
            menu.popup(widget.mapToGlobal(corner))

    # Editing

    def start_editing(self, message_id: int) -> None:
        """Open the editor in a row."""
        view = self._view
        shown = view.view_of(message_id)
        if shown is None or shown.state.is_live or shown.draft:
            return  # drafts that are compared are not edited; a kept one is
        if view.row_of(message_id) is None:
            view.reveal(message_id)
        row = view.row_of(message_id)
        if row is None or row.editor is not None:
            return
        at_end = view.is_at_end
        view.stay_here()
        editor = row.open_editor(self.drafts.get(message_id, shown.text))
        self.drafts[message_id] = editor.text
        editor.edit.textChanged.connect(lambda: self._keep_draft(message_id))
        view.relayout()
        if at_end:
            view.scroll_to_end()
        else:
            self._bring_up(row)
        editor.edit.setFocus(Qt.FocusReason.OtherFocusReason)
        view.editing_changed.emit(True)

    def editor_grew(self, row: Row) -> None:
        """An open editor takes another height: its buttons stay in view."""
        at_end = self._view.is_at_end
        row.arrange_editor()
        self._view.relayout()
        if not at_end:
            self._bring_up(row)

    def _bring_up(self, row: Row) -> None:
        """Scroll until the end of a row is in view, or its beginning at the top."""
        hidden = row.geometry().bottom() - self._view.viewport().height()
        if hidden > 0:
            bar = self._view.verticalScrollBar()
            bar.setValue(bar.value() + max(0, min(row.geometry().top(), hidden)))

    def _keep_draft(self, message_id: int) -> None:
        row = self._view.row_of(message_id)
        if row is not None and row.editor is not None:
            self.drafts[message_id] = row.editor.text

    def _end_editing(self, message_id: int) -> None:
        view = self._view
        row = view.row_of(message_id)
        self.drafts.pop(message_id, None)
        if row is None:
            return
        row.close_editor()
        row.setFocus(Qt.FocusReason.OtherFocusReason)
        row.update()
        view.relayout()
        view.editing_changed.emit(bool(self.drafts))
