"""One window for one profile: a second start asks the first to come to the front."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtNetwork import QLocalServer, QLocalSocket

_WAIT_MS = 1000
_RAISE = b"raise\n"


class SingleInstance(QObject):
    """A local socket named after the profile's folder; readable by this user only."""

    raise_wanted = Signal()

    def __init__(self, profile_root: Path) -> None:
        super().__init__()
        digest = hashlib.sha256(str(profile_root.absolute()).encode()).hexdigest()[:16]
        self._name = f"grove-{digest}"
        self._server: QLocalServer | None = None

    def raised_other(self) -> bool:
        """Ask a running window to come up; False when there is none, and this one is it now.

        Waits a second at most, before any window is there.
        """
        socket = QLocalSocket()
        socket.connectToServer(self._name)
        if socket.waitForConnected(_WAIT_MS):
            _let_it_raise_itself()
            socket.write(_RAISE)
            socket.waitForBytesWritten(_WAIT_MS)
            socket.disconnectFromServer()
            return True
        server = QLocalServer(self)
        server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        if not server.listen(self._name):
            # Nobody answers there: the socket is left over from a crash.
            QLocalServer.removeServer(self._name)
            server.listen(self._name)
        server.newConnection.connect(self._answer)
        self._server = server
        return False

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
