"""Draws the transcript with sample rows to PNG files, to be looked at beside the look's pictures.

python -m tests.ui.look FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import QApplication, QWidget

from desktop_app.ui import maths, theme, words
from desktop_app.ui.transcript import Transcript
from tests.ui.sample_rows import picture_rows, state_rows


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
    maths.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
