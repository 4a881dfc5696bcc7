"""The menus of weights, presets and drafts, and the names by which these are shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QFileDialog, QMenu, QWidget

from desktop_app.conversation.document import Conversation
from desktop_app.inference.sampling import PRESETS
from desktop_app.paths import starter_weights
from desktop_app.session import Session
from desktop_app.settings import Settings
from desktop_app.ui import icons
from desktop_app.ui.controls import name_control
from desktop_app.ui.words import tr

MAX_DRAFTS = 8


def preset_name(key: str) -> str:
    """A preset in words; the user's own presets are named by themselves."""
    return tr(f"preset.{key.replace('-', '_')}") if key in PRESETS else key


def preset_of(settings: Settings, conversation: Conversation | None) -> str:
    """The key of the preset in force for a chat."""
    own = conversation.chat.preset if conversation is not None else ""
    known = own in PRESETS or own in settings.presets
    return own if own and known else settings.preset


def weights_name(session: Session) -> str:
    """What answers: the loaded weights, those being loaded, or the words for none."""
    loaded = session.engine.loaded
    if loaded is not None:
        return loaded.name
    path = session.default_weights()
    return file_name(path) if path is not None else tr("composer.no_weights")


def short_name(name: str) -> str:
    """Without the word that nearly every name ends with: there is little room."""
    return re.sub(r"[ _-](instruct|chat)$", "", name, flags=re.IGNORECASE) or name


def file_name(path: Path | str) -> str:
    """A weights file by its name, without the ending; the built-in guide by its own."""
    starter = starter_weights()
    if starter is not None and Path(path) == starter:
        return tr("weights_card.guide")
    return Path(path).stem


def known_weights(session: Session) -> list[Path]:
    """Weights files used before, those in Grove's folder, the built-in guide: what is there."""
    paths = [Path(str(path)) for path in session.settings.recent_weights]
    folder = session.profile.weights
    if folder.is_dir():
        paths += sorted(folder.glob("*.gguf"))
    starter = starter_weights()
    if starter is not None:
        paths.append(starter)
    unique = dict.fromkeys(path for path in paths if path.is_file())
    return list(unique)[:12]


def weights_menu(
    parent: QWidget,
    session: Session,
    choose: Callable[[Path], object],
    open_file: Callable[[], object],
    open_page: Callable[[], object] | None = None,
) -> QMenu:
    """Known files with a mark at the loaded one, and the way to others."""
    menu = QMenu(parent)
    name_control(menu, "weights.menu", tr("composer.weights"))
    loaded = session.engine.loaded
    for path in known_weights(session):
        action = menu.addAction(file_name(path))
        action.setCheckable(True)
        action.setChecked(loaded is not None and Path(loaded.path) == path)
        action.setToolTip(str(path))
        action.triggered.connect(lambda _on=False, path=path: choose(path))
    if not menu.isEmpty():
        menu.addSeparator()
    if open_page is not None:
        menu.addAction(icons.icon("download"), tr("menu.weights_page"), open_page)
    menu.addAction(icons.icon("file-up"), tr("menu.open_weights"), open_file)
    if loaded is not None or session.is_loading:
        menu.addAction(icons.icon("unplug"), tr("menu.unload_weights"), session.unload)
    return menu


def preset_menu(
    parent: QWidget, settings: Settings, current: str, choose: Callable[[str], object]
) -> QMenu:
    """All presets, the user's own below a line."""
    menu = QMenu(parent)
    name_control(menu, "preset.menu", tr("composer.preset"))
    group = QActionGroup(menu)
    own = [str(key) for key in settings.presets if key not in PRESETS]
    for keys in (list(PRESETS), own):
        if keys and not menu.isEmpty():
            menu.addSeparator()
        for key in keys:
            _choice(menu, group, preset_name(key), key == current).triggered.connect(
                lambda _on=False, key=key: choose(key)
            )
    return menu


def drafts_menu(parent: QWidget, current: int, choose: Callable[[int], object]) -> QMenu:
    """1 to `MAX_DRAFTS` replies at once."""
    menu = QMenu(parent)
    name_control(menu, "drafts.menu", tr("composer.drafts"))
    group = QActionGroup(menu)
    for count in range(1, MAX_DRAFTS + 1):
        action = _choice(menu, group, tr("composer.n_drafts", count=count), count == current)
        action.triggered.connect(lambda _on=False, count=count: choose(count))
    return menu


def ask_for_weights(parent: QWidget) -> Path | None:
    """The system's dialog for a .gguf file."""
    chosen, _filter = QFileDialog.getOpenFileName(
        parent, tr("menu.open_weights"), "", f"{tr('menu.weights_files')} (*.gguf)"
    )
    return Path(chosen) if chosen else None


def _choice(menu: QMenu, group: QActionGroup, text: str, on: bool) -> QAction:
    action = menu.addAction(text)
    action.setCheckable(True)
    action.setChecked(on)
    group.addAction(action)
    return action
