"""The composition root: builds the parts, wires them, and takes them down in order.  No logic."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import (
    QCoreApplication,
    QLocale,
    QSocketNotifier,
    QTimer,
)
from PySide6.QtWidgets import QApplication, QMessageBox

from desktop_app import log, quick_start
from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine
from desktop_app.paths import Profile
from desktop_app.session import Session
from desktop_app.settings import Settings
from desktop_app.storage import Library
from desktop_app.ui import icons, theme, words
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.controls import FocusRing
from desktop_app.ui.first_paint import after_first_paint
from desktop_app.ui.single_instance import SingleInstance
from desktop_app.ui.window import MainWindow

_LISTENS_AFTER_S = 3.0


def main(profile: Profile) -> int:
    """Run the window on a profile; returns the exit status.

    A second start for the same profile raises the first one's window and ends with 0.
    """
    _prepare_environment()
    app = make_application()
    instance = SingleInstance(profile.root)
    if instance.raised_other():
        return 0
    try:
        profile.create()
        log.start(profile.logs)
        return _run(app, profile, instance)
    except KnownError as error:
        # The window that has the profile may have taken it only now, and not listen yet.
        if error.code == "profile-busy" and instance.raised_other(patience_s=_LISTENS_AFTER_S):
            return 0
        _tell(error.sentence, error.detail)
        return 1
    except OSError as error:
        _tell(words.tr("app.folder_failed", folder=str(profile.root)), str(error))
        return 1
    finally:
        instance.close()


def make_application() -> QApplication:
    """The QApplication with Grove's names."""
    app = QApplication.instance()
    if isinstance(app, QApplication):
        return app
    QCoreApplication.setApplicationName("Grove")
    made = QApplication(sys.argv[:1])
    made.setApplicationDisplayName("Grove")
    made.setDesktopFileName("grove")
    return made


def dress(app: QApplication, settings: Settings, *, sheet: bool = True) -> FocusRing:
    """Words, colours, fonts, icon and the focus ring, as the settings say.

    Italics and bold code follow with `theme.load_late_fonts`, and without `sheet` the style sheet
    with `Theme.put_sheet`.
    """
    language = words.set_language(settings.language)
    if language == "ko":
        QLocale.setDefault(QLocale("ko_KR"))
    theme.install(settings.theme, settings.text_scale, language, sheet=sheet)  # type: ignore[arg-type]  # settings check the choice
    app.setWindowIcon(icons.app_icon())
    return FocusRing(app)


def _run(app: QApplication, profile: Profile, instance: SingleInstance) -> int:
    settings = Settings.load(profile)
    bridge = Bridge()
    ring = dress(app, settings, sheet=False)
    library = Library.open(profile, post=bridge.post)
    engine = Engine(log_dir=profile.logs, cache_dir=profile.cache)
    session = Session(library, engine, settings, bridge.post, profile=profile, later=later)
    window = MainWindow(session, bridge)
    theme.current().put_sheet()
    log.catch_bugs(lambda sentence, trace: bridge.post(lambda: window.tell_bug(sentence, trace)))
    instance.raise_wanted.connect(window.raise_up)
    app.commitDataRequest.connect(lambda _session: window.keep_state())
    ending = _Ending(app)
    try:
        window.show()
        after_first_paint(window, lambda: _after_paint(window, instance))
        if settings.notice:
            window.page.toast.tell(settings.notice)
        app.lastWindowClosed.connect(app.quit)
        # Queued: `quit` before the loop runs has no effect, and a signal may have come by now.
        QTimer.singleShot(0, lambda: app.quit() if ending.wanted else None)
        status = app.exec()
        window.keep_state()
        return status
    finally:
        # The order matters: replies end and are written, then the writer ends, then the bridge.
        ending.release()
        window.hub.close()
        window.files.close()
        session.close()
        library.close()
        bridge.close()
        ring.deleteLater()
        window.deleteLater()
        app.processEvents()
        log.catch_bugs()


def _after_paint(window: MainWindow, instance: SingleInstance) -> None:
    quick_start.end()
    instance.listen()
    theme.load_late_fonts()
    window.begin()


def later(delay_s: float, call: Callable[[], None]) -> None:
    QTimer.singleShot(int(delay_s * 1000), call)


def _prepare_environment() -> None:
    """Input methods and Wayland, before QApplication reads the environment."""
    if not sys.platform.startswith("linux"):
        return
    # Qt's wheels have no fcitx plugin; fcitx speaks IBus's protocol as well.
    if os.environ.get("QT_IM_MODULE", "").startswith("fcitx"):
        os.environ["QT_IM_MODULE"] = "ibus"
    wanted = os.environ.get("QT_IM_MODULES", "")
    if "fcitx" in wanted and "ibus" not in wanted:
        os.environ["QT_IM_MODULES"] = f"{wanted};ibus"


class _Ending:
    """SIGTERM, SIGINT and SIGHUP end the window as the user would, until `release`.

    Python runs a signal's handler only between two byte codes, and Qt's loop runs none: the
    interpreter's wake-up socket brings the loop round.  `wanted` remembers a signal that came
    before there was a loop to end.  The end itself waits for the loop: the handler may stand in the
    middle of anything, with locks held that closing the window takes.
    """

    def __init__(self, app: QApplication) -> None:
        self.wanted = False
        self._app = app
        self._receiver: socket.socket | None = None
        if sys.platform == "win32":
            return
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._old_wakeup = signal.set_wakeup_fd(self._sender.fileno())
        self._notifier = QSocketNotifier(self._receiver.fileno(), QSocketNotifier.Type.Read)
        self._notifier.activated.connect(self._woken)
        names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._old = {name: signal.signal(name, self._signalled) for name in names}

    def _signalled(self, _number: int, _frame: object) -> None:
        self.wanted = True
        QTimer.singleShot(0, self._app.quit)

    def _woken(self) -> None:
        assert self._receiver is not None
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(64)

    def release(self) -> None:
        """Give the signals back to whom they belonged."""
        if self._receiver is None:
            return
        self._notifier.setEnabled(False)
        signal.set_wakeup_fd(self._old_wakeup)
        for name, handler in self._old.items():
            signal.signal(name, handler)
        self._receiver.close()
        self._sender.close()


def _tell(sentence: str, detail: str = "") -> None:
    """The one dialog of a start that failed."""
    box = QMessageBox()
    box.setWindowTitle("Grove")
    box.setText(sentence)
    if detail:
        box.setDetailedText(detail)
    box.exec()


def profile_at(folder: str | Path) -> Profile:
    """A profile in a folder of the caller's choice, for tests and tools."""
    return Profile(Path(folder))
