"""All keyboard shortcuts on one page."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QDialog, QGridLayout, QVBoxLayout, QWidget

from desktop_app.ui.actions import MENUS, Command
from desktop_app.ui.controls import label, name_control, push_button
from desktop_app.ui.words import tr


class ShortcutsWindow(QDialog):
    """All shortcuts on one page, in two columns."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("menu.shortcuts"))
        name_control(self, "shortcuts", tr("menu.shortcuts"))
        grid = QGridLayout()
        grid.setHorizontalSpacing(18)
        grid.setVerticalSpacing(5)
        for side, menus in enumerate((("file", "chat"), ("view", "help", "keys"))):
            row = 0
            for menu_key in menus:
                row = _fill(grid, menu_key, row, side * 3)
        grid.setColumnMinimumWidth(2, 36)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 18, 24, 18)
        column.setSpacing(14)
        column.addWidget(label(tr("menu.shortcuts"), "heading"))
        column.addLayout(grid)
        close = push_button(tr("app.close"), "shortcuts.close", on_click=self.close)
        column.addWidget(close, 0, Qt.AlignmentFlag.AlignRight)


_KEYS: Final = (
    Command("send", ("Return",)),
    Command("new_line", ("Shift+Return",)),
    Command("stop", ("Esc",)),
    Command("edit_last", ("Up",)),
)


def _fill(grid: QGridLayout, menu_key: str, row: int, column: int) -> int:
    grid.addWidget(label(tr(f"menu.{menu_key}"), "section"), row, column, 1, 2)
    commands = _KEYS if menu_key == "keys" else MENUS[menu_key]
    for command in commands:
        if not command.shortcuts:
            continue
        row += 1
        keys = QKeySequence(command.shortcuts[0])
        grid.addWidget(label(tr(f"menu.{command.key}")), row, column)
        shown = label(keys.toString(QKeySequence.SequenceFormat.NativeText), "small")
        grid.addWidget(shown, row, column + 1)
    grid.setRowMinimumHeight(row + 1, 10)
    return row + 2
