"""Every command of the window with its words and its usual shortcut, in menus."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMainWindow, QMenu, QWidget

from desktop_app.ui import icons
from desktop_app.ui.controls import name_control
from desktop_app.ui.words import tr


@dataclass(frozen=True, slots=True)
class Command:
    """`key` names the words ``menu.<key>`` and the handler; shortcuts in Qt's portable form."""

    key: str
    shortcuts: tuple[str, ...] = ()
    icon: str = ""


SEPARATOR: Final = Command("")

MENUS: Final[dict[str, tuple[Command, ...]]] = {
    "file": (
        Command("new_chat", ("Ctrl+N",), "square-pen"),
        Command("open_weights", ("Ctrl+O",), "file-up"),
        Command("weights_page", ("Ctrl+Shift+G",), "download"),
        SEPARATOR,
        Command("import_chats", (), "download"),
        Command("export_chat", ("Ctrl+Shift+S",), "upload"),
        Command("export_all", (), "upload"),
        SEPARATOR,
        Command("trash", (), "trash-2"),
        Command("settings", ("Ctrl+,",), "settings"),
        SEPARATOR,
        Command("quit", ("Ctrl+Q",), "log-out"),
    ),
    "chat": (
        Command("undo", ("Ctrl+Z",), "undo-2"),
        Command("redo", ("Ctrl+Shift+Z", "Ctrl+Y"), "redo-2"),
        SEPARATOR,
        Command("ask_again", ("Ctrl+R",), "rotate-ccw"),
        Command("ask_drafts", ("Ctrl+Shift+R",), "columns-2"),
        Command("send_drafts", ("Ctrl+Shift+Return",)),
        Command("edit", ("Ctrl+E",), "pencil"),
        Command("previous_version", ("Alt+Left",), "chevron-left"),
        Command("next_version", ("Alt+Right",), "chevron-right"),
        Command("stop", ("Ctrl+.",), "square"),
        SEPARATOR,
        Command("rename", ("F2",), "text-cursor-input"),
        Command("show_prompt", ("Ctrl+Shift+P",), "scroll-text"),
        Command("keep_only_path", (), "route"),
        Command("delete_chat", (), "trash-2"),
    ),
    "view": (
        Command("search", ("Ctrl+K", "Ctrl+Shift+F"), "search"),
        Command("find", ("Ctrl+F",), "search"),
        SEPARATOR,
        Command("sidebar", ("Ctrl+B",), "panel-left"),
        Command("dock", ("Ctrl+Shift+B",), "panel-right"),
        Command("outline", ("Ctrl+Shift+O",), "list-tree"),
        Command("chat_settings", ("Ctrl+Shift+,",), "sliders-horizontal"),
        SEPARATOR,
        Command("previous_chat", ("Ctrl+PgUp",)),
        Command("next_chat", ("Ctrl+PgDown",)),
        Command("composer", ("Ctrl+L",), "message-square"),
        Command("larger_text", ("Ctrl++", "Ctrl+=")),
        Command("smaller_text", ("Ctrl+-",)),
        Command("normal_text", ("Ctrl+0",)),
    ),
    "help": (
        Command("shortcuts", ("F1", "Ctrl+/", "?"), "keyboard"),
        Command("about", (), "info"),
    ),
}

Handlers = dict[str, Callable[[], object]]


def make_actions(window: QMainWindow, handlers: Handlers) -> dict[str, QAction]:
    """Add every command to the window and its menu bar; KeyError for one without a handler.

    The bar itself stays hidden where it is not the platform's (F10 shows it): the actions belong
    to the window, so their shortcuts work all the same.
    """
    made: dict[str, QAction] = {}
    bar = window.menuBar()
    name_control(bar, "menu", tr("menu.bar"))
    for menu_key, commands in MENUS.items():
        menu = bar.addMenu(tr(f"menu.{menu_key}"))
        menu.aboutToShow.connect(functools.partial(_draw_icons, menu))
        name_control(menu, f"menu.{menu_key}", tr(f"menu.{menu_key}"))
        for command in commands:
            if not command.key:
                menu.addSeparator()
                continue
            action = QAction(tr(f"menu.{command.key}"), window)
            action.setObjectName(f"action.{command.key}")
            action.setShortcuts([QKeySequence(keys) for keys in command.shortcuts])
            action.setData(command.icon)
            handler = handlers[command.key]
            action.triggered.connect(lambda _on=False, handler=handler: handler())
            menu.addAction(action)
            window.addAction(action)
            made[command.key] = action
    return made


def _draw_icons(menu: QMenu) -> None:
    """Icons are rendered when a menu is about to open, in the colours of now."""
    for action in menu.actions():
        name = action.data()
        if isinstance(name, str) and name:
            action.setIcon(icons.icon(name))


def chat_menu(parent: QWidget, actions: dict[str, QAction], *, pin: QAction) -> QMenu:
    """The header's menu: what concerns this chat, then the rest of the window."""
    menu = QMenu(parent)
    name_control(menu, "header.menu", tr("header.more"))
    menu.addAction(actions["rename"])
    menu.addAction(pin)
    menu.addAction(actions["show_prompt"])
    menu.addAction(actions["keep_only_path"])
    menu.addAction(actions["export_chat"])
    menu.addSeparator()
    menu.addAction(actions["weights_page"])
    menu.addAction(actions["open_weights"])
    menu.addAction(actions["import_chats"])
    menu.addAction(actions["export_all"])
    menu.addAction(actions["trash"])
    menu.addAction(actions["settings"])
    menu.addAction(actions["shortcuts"])
    menu.addSeparator()
    menu.addAction(actions["delete_chat"])
    _draw_icons(menu)
    return menu
