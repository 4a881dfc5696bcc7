"""One window for one profile: a second start asks the first to come to the front."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QCryptographicHash, QDir, QObject, Signal

if TYPE_CHECKING:
    # Qt's network library is loaded when it is needed: not before the first paint.
    from PySide6.QtNetwork import QLocalServer

_WAIT_MS: Final = 1000
_PAUSE_S: Final = 0.1
_RAISE: Final = b"raise\n"


class SingleInstance(QObject):
    """A local socket named after the profile's folder; readable by this user only.

    Who holds the profile is decided by the library's lock.  The socket only carries the request to
    come up, so it may be there a moment later than the window.
    """

    raise_wanted = Signal()

    def __init__(self, profile_root: Path) -> None:
        super().__init__()
        path = str(profile_root.absolute()).encode()
        digest = QCryptographicHash.hash(path, QCryptographicHash.Algorithm.Sha256)
        self._name = f"grove-{bytes(digest.toHex().data()[:16]).decode()}"
        self._server: QLocalServer | None = None

    def raised_other(self, *, patience_s: float = 0.0) -> bool:
        """Ask a running window to come up; False when none answers.

        With `patience_s` it asks again that long: a window that has only just taken the profile
        listens after its first paint.  Waits at most a second longer for an answer.
        """
        end = time.monotonic() + patience_s
        while not self._ask():
            if time.monotonic() >= end:
                return False
            time.sleep(_PAUSE_S)
        return True

    def _ask(self) -> bool:
        if sys.platform != "win32" and not Path(QDir.tempPath(), self._name).exists():
            return False
        from PySide6.QtNetwork import QLocalSocket

        socket = QLocalSocket()
        socket.connectToServer(self._name)
        if not socket.waitForConnected(_WAIT_MS):
            return False  # left over from a crash
        _let_it_raise_itself()
        socket.write(_RAISE)
        socket.waitForBytesWritten(_WAIT_MS)
        socket.disconnectFromServer()
        return True

    def listen(self) -> None:
        """Answer later starts from now on, by `raise_wanted`; for the holder of the profile."""
        from PySide6.QtNetwork import QLocalServer

        server = QLocalServer(self)
        server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        if not server.listen(self._name):
            # Nobody answers there: the socket is left over from a crash.
            QLocalServer.removeServer(self._name)
            server.listen(self._name)
        server.newConnection.connect(self._answer)
        self._server = server

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _answer(self) -> None:
        assert self._server is not None
        socket = self._server.nextPendingConnection()
        while socket is not None:
            socket.disconnected.connect(socket.deleteLater)
            self.raise_wanted.emit()
            socket = self._server.nextPendingConnection()


def _let_it_raise_itself() -> None:
    """Windows lets a process take the foreground only when the one that has it allows it."""
    if sys.platform == "win32":
        import ctypes

        any_process = -1
        ctypes.windll.user32.AllowSetForegroundWindow(any_process)
