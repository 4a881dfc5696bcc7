"""A small HTTP proxy on loopback that tunnels (CONNECT) and may ask for a name and password."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeProxy:
    """A context manager.  `seen` lists what it was asked to connect to, with the credentials."""

    def __init__(self, *, account: str = "") -> None:
        # "name:password", or "" for everybody.
        self.account = account
        self.seen: list[tuple[str, str]] = []
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeProxy:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()  # waits for the tunnels
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, proxy: FakeProxy) -> None:
        self.proxy = proxy
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_CONNECT(self) -> None:
        proxy = self.server.proxy
        scheme, _, code = self.headers.get("Proxy-Authorization", "").partition(" ")
        account = base64.b64decode(code).decode() if scheme == "Basic" else ""
        proxy.seen.append((self.path, account))
        if account != proxy.account:
            self.send_response(407)
            self.send_header("Proxy-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self._tunnel(target)
        self.close_connection = True

    def _tunnel(self, target: socket.socket) -> None:
        ends = {self.connection: target, target: self.connection}
        while not self.server.closing.is_set():
            readable, _, _ = select.select(list(ends), [], [], 0.02)
            for end in readable:
                data = end.recv(64 << 10)
                if not data:
                    return
                ends[end].sendall(data)
