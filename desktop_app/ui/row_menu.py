"""The menu of a message: everything its buttons do, and what has no button."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QMenu, QWidget

from desktop_app.ui import icons
from desktop_app.ui.controls import name_control
from desktop_app.ui.row_view import RowView
from desktop_app.ui.words import tr

Ask = Callable[[str, object], None]
"""Called with the verb that was chosen and its value, if any."""

_MOST_ENTRIES = 20
MOST_DRAFTS = 8


def message_menu(
    parent: QWidget,
    view: RowView,
    ask: Ask,
    *,
    selection: bool = False,
    links: Sequence[str] = (),
    codes: Sequence[tuple[int, str]] = (),
    drafts: int = 3,
) -> QMenu:
    """The menu of a message, also of one that stands in a card beside other drafts.

    `selection` adds copying what is selected.  `links` and `codes` (index and language) are what
    the pointer reaches in the text: here they are for the keyboard.
    """
    menu = QMenu(parent)
    name_control(menu, "message.menu", tr("row.actions"))

    def add(verb: str, text: str, icon: str, role: str = "text2", keys: str = "") -> QAction:
        action = menu.addAction(icons.icon(icon, role), text)
        if keys:
            action.setShortcut(keys)
            action.setShortcutVisibleInContextMenu(True)
        action.triggered.connect(lambda: ask(verb, None))
        action.setObjectName(f"message.menu.{verb}")
        return action

    live = view.state.is_live
    if selection:
        add("copy_selection", tr("row.copy_selection"), "copy", keys="Ctrl+C")
        menu.addSeparator()
    if live:
        add("stop", tr("row.stop"), "stop")
    elif view.can_ask_again:
        add("again", tr("row.ask_again"), "rotate-ccw", keys="Ctrl+R")
        add("drafts", tr("row.ask_drafts", count=drafts), "columns-2", keys="Ctrl+Shift+R")
        counts = menu.addMenu(tr("row.ask_count"))
        counts.menuAction().setObjectName("message.menu.count")
        add_draft_counts(counts, drafts, lambda count: ask("drafts", count))
    if view.draft:
        add("keep_draft", tr("draft.keep_number", number=view.draft), "check")
    if not live:
        if not view.draft:
            add("edit", tr("row.edit"), "pencil", keys="Ctrl+E")
        if view.can_continue and not view.is_user:
            add("continue", tr("row.continue"), "play")
    add("copy", tr("row.copy"), "copy")
    add("star", tr("row.unstar" if view.starred else "row.star"), "star")
    _add_list(
        menu, tr("row.copy_code"), "copy_code", [(i, name or "text") for i, name in codes], ask
    )
    _add_list(menu, tr("row.open_link"), "link", [(link, link) for link in links], ask)
    menu.addSeparator()
    add("copy_to_chat", tr("row.copy_to_new_chat"), "git-branch")
    add("keep_path", tr("row.keep_only_path"), "route")
    add("show_prompt", tr("row.show_prompt"), "eye")
    if not view.is_user and not live:
        add("details", tr("row.how_written"), "info")
    add("select_all", tr("row.select_all"), "scroll-text")
    menu.addSeparator()
    add("delete", delete_words(view), "trash-2", "clay")
    return menu


def add_draft_counts(menu: QMenu, current: int, choose: Callable[[int], object]) -> None:
    """2 to 8 drafts, the number of last time marked."""
    group = QActionGroup(menu)
    for count in range(2, MOST_DRAFTS + 1):
        action = menu.addAction(tr("composer.n_drafts", count=count))
        action.setObjectName(f"message.menu.drafts.{count}")
        action.setCheckable(True)
        action.setChecked(count == current)
        group.addAction(action)
        action.triggered.connect(lambda _on=False, count=count: choose(count))


def _add_list(
    menu: QMenu, title: str, verb: str, entries: Sequence[tuple[object, str]], ask: Ask
) -> None:
    """One action for one entry, a menu for several."""
    if not entries:
        return
    icon = icons.icon("clipboard" if verb == "copy_code" else "external-link")
    holder = menu if len(entries) == 1 else menu.addMenu(icon, title)
    for number, (value, name) in enumerate(entries[:_MOST_ENTRIES], 1):
        text = title if len(entries) == 1 else f"{number}. {name[:60]}".replace("&", "&&")
        action = holder.addAction(text)
        if len(entries) == 1:
            action.setIcon(icon)
        action.setObjectName(f"message.menu.{verb}.{number}")
        action.triggered.connect(lambda _on=False, value=value: ask(verb, value))


def delete_words(view: RowView) -> str:
    """What Delete takes away, with its size."""
    key = "row.delete_version" if view.versions > 1 else "row.delete"
    if view.below:
        return tr(f"{key}_below", count=view.below)
    return tr(key)
