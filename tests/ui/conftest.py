"""Every test of the interface: off screen, in English, in the light theme."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from desktop_app.ui import theme, words
from desktop_app.ui.bridge import Bridge
from tests.fakes.hub import FakeHub
from tests.ui.desk import Desk, Open, opener, room_of


@pytest.fixture(autouse=True)
def look(qapp: QApplication) -> theme.Theme:
    """English words and the light theme."""
    words.set_language("en")
    made = theme.current()
    made.set_mode("light")
    return made


@pytest.fixture
def bridge(qapp: QApplication) -> Bridge:
    """A bridge of this test's own."""
    return Bridge()


@pytest.fixture
def open_desk(qtbot: QtBot, tmp_path: Path) -> Iterator[Open]:
    """Opens a window on one profile, again and again; the last one is closed at the end."""
    weights = Desk.weights(tmp_path / "files")
    with opener(lambda: Desk(qtbot, tmp_path / "profile", weights_path=str(weights))) as start:
        yield start


@pytest.fixture
def desk(qtbot: QtBot, tmp_path: Path, hub: FakeHub) -> Iterator[Desk]:
    """A window whose weights room knows a module's own `hub` and nothing else of this computer."""
    weights = Desk.weights(tmp_path / "files")
    made = Desk(qtbot, tmp_path / "profile", weights_path=str(weights))
    made.window.hub.make_room = lambda: room_of(made, hub)
    yield made
    if not made.closed:
        made.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The offscreen platform says of itself what it lacks; that is no fault of ours."""
    for item in items:
        if "tests/ui/" in item.path.as_posix():
            item.add_marker(pytest.mark.qt_log_ignore("does not support propagateSizeHints"))
