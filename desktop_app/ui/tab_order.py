"""Tab through a window area by area, in the order in which they are seen.

Qt's own chain is the order in which widgets were made; what is made late (the messages of a chat)
would come last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QWidget

Area = tuple[QWidget, Callable[[], bool] | None]
"""A part of the window, and how Tab enters it (False: it is empty); None: at its nearest stop."""


def step(areas: Sequence[Area], *, forward: bool) -> bool:
    """Give the focus to the next stop after the widget that has it; False outside of all areas.

    `areas` stand in the order of sight and hold all stops, the last is followed by the first.
    """
    here = QApplication.focusWidget()
    if here is None:
        return False
    at = next((i for i, (a, _) in enumerate(areas) if a is here or a.isAncestorOf(here)), -1)
    if at < 0:
        return False
    reason = Qt.FocusReason.TabFocusReason if forward else Qt.FocusReason.BacktabFocusReason
    inside = _stops(areas[at][0], here)
    beside = inside.index(here) + (1 if forward else -1)
    if 0 <= beside < len(inside):
        inside[beside].setFocus(reason)
        return True
    for distance in range(1, len(areas) + 1):
        area, enter = areas[(at + (distance if forward else -distance)) % len(areas)]
        if not area.isVisible():
            continue
        if enter is not None and distance < len(areas):
            if enter():
                return True
            continue
        stops = _stops(area)
        if stops:
            stops[0 if forward else -1].setFocus(reason)
            return True
    return False


def widgets_in(area: QWidget) -> list[QWidget]:
    """An area and everything in it, in the order in which it was put there.

    Not by `nextInFocusChain`: PySide holds what that returns for a child of the widget it was asked
    of, and declares both deleted when the one is (the list of messages with a closed editor).
    """
    return [area, *(one for one in area.findChildren(QWidget) if one.window() is area.window())]


def _stops(area: QWidget, here: QWidget | None = None) -> list[QWidget]:
    """What Tab stops at in an area, `here` always among them."""
    return [one for one in widgets_in(area) if one is here or _takes_tab(one)]


def _takes_tab(widget: QWidget) -> bool:
    takes = bool(widget.focusPolicy().value & Qt.FocusPolicy.TabFocus.value)
    usable = widget.isEnabled() and widget.isVisible() and widget.focusProxy() is None
    return takes and usable and not widget.isWindow()
