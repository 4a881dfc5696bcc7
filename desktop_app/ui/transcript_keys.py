"""The keyboard in the transcript: from message to message, through long ones, to their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QApplication, QWidget

if TYPE_CHECKING:
    from desktop_app.ui.row import Row
    from desktop_app.ui.transcript import Transcript

_LINES_PX = 72


class Keys:
    """Keys pressed in a row of one transcript."""

    def __init__(self, view: Transcript) -> None:
        self._view = view

    def focused_row(self) -> int:
        """The place in the path of the row that has the keyboard, -1 for none."""
        widget = QApplication.focusWidget()
        while widget is not None and widget.objectName() != "message":
            widget = widget.parentWidget()
        for index, row in enumerate(self._view.rows if widget is not None else ()):
            if self._view.row_of(row.message_id) is widget:
                return index
        return -1

    @staticmethod
    def focus_inside(row: Row) -> QWidget | None:
        """The widget with the keyboard when it is this row or inside of it."""
        widget = QApplication.focusWidget()
        inside = widget is not None and (widget is row or row.isAncestorOf(widget))
        return widget if inside else None

    def focus_editor(self) -> bool:
        """Give the keyboard to an open editor; False when there is none."""
        widgets = (self._view.row_of(row.message_id) for row in self._view.rows)
        editors = (widget.editor for widget in widgets if widget is not None)
        editor = next((one for one in editors if one is not None), None)
        if editor is not None:
            editor.edit.setFocus(Qt.FocusReason.TabFocusReason)
        return editor is not None

    def take_focus_from(self, row: Row) -> None:
        """A row is about to go."""
        widget = self.focus_inside(row)
        if widget is not None:
            widget.clearFocus()

    def pressed(self, row: Row, event: QKeyEvent) -> bool:
        """True when the key was for us."""
        key, view = event.key(), self._view
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            return self._with_control(key)
        bar = view.verticalScrollBar()
        pages = {
            Qt.Key.Key_PageUp: -bar.pageStep() + 40,
            Qt.Key.Key_PageDown: bar.pageStep() - 40,
        }
        if key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self._step(row, 1 if key == Qt.Key.Key_Down else -1)
        elif key in pages:
            bar.setValue(bar.value() + pages[Qt.Key(key)])
        elif key == Qt.Key.Key_Home:
            view.focus_message(view.rows[0].message_id)
        elif key == Qt.Key.Key_End:
            view.focus_message(view.rows[-1].message_id)
        elif key in (Qt.Key.Key_Left, Qt.Key.Key_Right) and row.view.versions > 1:
            step = 1 if key == Qt.Key.Key_Right else -1
            view.act(row.message_id, "version", row.view.version + step)
        elif key == Qt.Key.Key_Menu:
            at = row.mapToGlobal(QPoint(round(row.left) + 60, 30))
            view.open_menu(row.acting_id, at)
        elif key == Qt.Key.Key_Escape and not view.selection.is_empty:
            view.clear_selection()
        else:
            return False
        return True

    def _with_control(self, key: int) -> bool:
        view = self._view
        if key == Qt.Key.Key_C:
            return view.copy_selection()
        if key == Qt.Key.Key_A:
            view.select_all()
            return True
        if key in (Qt.Key.Key_Home, Qt.Key.Key_End) and view.rows:
            view.focus_message(view.rows[0 if key == Qt.Key.Key_Home else -1].message_id)
            return True
        return False

    def _step(self, row: Row, step: int) -> None:
        """Up and Down: through a message higher than the view, else to the next message."""
        view = self._view
        bar, height = view.verticalScrollBar(), view.viewport().height()
        higher = row.height() > height
        hidden_below = higher and row.geometry().bottom() > height + 4
        hidden_above = higher and row.y() < -4
        if (step > 0 and hidden_below) or (step < 0 and hidden_above):
            bar.setValue(bar.value() + step * _LINES_PX)
            return
        index = view.index_of(row.message_id) + step
        if 0 <= index < len(view.rows):
            view.focus_message(view.rows[index].message_id)
