"""A window with the real composer and nothing else: prints a JSON line for each message sent.

    python -m tests.fakes.composer_window

The first line is {"ready": {"x", "y", "send_x", "send_y"}} in screen pixels.
"""

from __future__ import annotations

import json
import sys

from PySide6.QtCore import QPoint, QTimer
from PySide6.QtWidgets import QApplication, QVBoxLayout, QWidget

from desktop_app.ui import theme
from desktop_app.ui.composer import Composer


def say(**data: object) -> None:
    """One line of output, at once."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


def main() -> None:
    """Show the composer and report what it sends."""
    application = QApplication(sys.argv)
    theme.install("light")
    window = QWidget()
    window.resize(720, 300)
    composer = Composer()
    layout = QVBoxLayout(window)
    layout.addWidget(composer)

    def sent(text: str) -> None:
        composer.clear()
        say(sent=text)

    composer.submitted.connect(sent)
    window.show()
    window.activateWindow()
    composer.focus_text()

    def ready() -> None:
        place = composer.text.mapToGlobal(QPoint(20, 8))
        button = composer.send_button.mapToGlobal(composer.send_button.rect().center())
        say(ready={"x": place.x(), "y": place.y(), "send_x": button.x(), "send_y": button.y()})

    QTimer.singleShot(300, ready)
    sys.exit(application.exec())


if __name__ == "__main__":
    main()
