"""Every test of the interface: off screen, in English, in the light theme."""

from __future__ import annotations

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest
from PySide6.QtWidgets import QApplication

from desktop_app.ui import theme, words
from desktop_app.ui.bridge import Bridge


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The offscreen platform says of itself what it lacks; that is no fault of ours."""
    for item in items:
        if "tests/ui/" in item.path.as_posix():
            item.add_marker(pytest.mark.qt_log_ignore("does not support propagateSizeHints"))
