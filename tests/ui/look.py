"""Draws the transcript with sample rows to PNG files, to be looked at beside the look's pictures.

python -m tests.ui.look FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QPixmap
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget

from desktop_app.ui import maths, theme, words
from desktop_app.ui.transcript import Transcript
from tests.ui.sample_rows import part_rows, picture_rows, state_rows


def settle(app: QApplication) -> None:
    """Let the worker finish its formulas and the view take them."""
    for _round in range(4):
        app.processEvents()
        maths.maths().wait()
        app.processEvents()


def grab(widget: QWidget, ratio: float) -> QPixmap:
    """The widget at a device pixel ratio, on any screen."""
    image = QPixmap(widget.size() * ratio)
    image.setDevicePixelRatio(ratio)
    image.fill(theme.current().color("canvas"))
    widget.render(image)
    return image


def parts(app: QApplication, folder: Path) -> None:
    """Hover, focus, selection, quotes, code and narrow views, in the light theme."""
    words.set_language("en")
    theme.current().set_language("en")
    theme.current().set_mode("light")
    for name, width in (("wide", 1100), ("parts", 728), ("narrow", 380)):
        view = Transcript()
        view.resize(width, 900)
        view.show()
        view.set_rows(part_rows())
        view.set_position(30, 0)
        settle(app)
        view.set_position(30, 0)
        row = view.row_of(31)
        assert row is not None
        row.setFocus(Qt.FocusReason.TabFocusReason)
        QTest.mouseMove(view.viewport(), QPoint(round(row.left) + 200, row.y() + 200))
        start, end = QPoint(row.pos().x() + round(row.left) + 90, 40), QPoint(width - 150, 120)
        QTest.mousePress(view.viewport(), Qt.MouseButton.LeftButton, pos=start)
        QTest.mouseMove(view.viewport(), end)
        QTest.mouseRelease(view.viewport(), Qt.MouseButton.LeftButton, pos=end)
        row.setFocus(Qt.FocusReason.TabFocusReason)
        settle(app)
        grab(view, 1.0).save(str(folder / f"{name}.png"))
        view.close()
        view.deleteLater()


def main(folder: Path) -> None:
    """Draw every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    app = QApplication.instance() or QApplication([])
    assert isinstance(app, QApplication)
    theme.install("light")
    theme.load_late_fonts()
    for language in ("en", "ko"):
        words.set_language(language)
        theme.current().set_language(language)
        for mode in ("light", "dark"):
            theme.current().set_mode(mode)
            for name, rows in (("main", picture_rows()), ("states", state_rows())):
                view = Transcript()
                view.resize(728, 690 if name == "main" else 1000)
                view.show()
                view.set_rows(rows)
                if name == "main":
                    view.row_entered(view.row_of(2))
                else:
                    view.set_position(10, 0)
                    view.start_editing(10)
                    view.act(17, "fold")
                    view.set_position(10, 0)
                settle(app)
                for ratio in (1.0, 2.0):
                    path = folder / f"{name}-{language}-{mode}-{ratio:.0f}x.png"
                    grab(view, ratio).save(str(path))
                view.close()
                view.deleteLater()
    parts(app, folder)
    maths.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
