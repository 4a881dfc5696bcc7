"""A small hub on loopback with the behaviours of a real one, good and bad.

Two origins: the hub (API, ``/resolve`` with a redirect and ``X-Linked-Etag``) and its file server
(signed links that run out, ranges).  Faults come from a plan, one for each request for bytes.

As a program it serves a folder ``OWNER/REPO/FILE``::

    python tests/fakes/hub.py FOLDER [--port N] [--seed N] [--rate BYTES_PER_S] [--faults 0.3]

and prints one line of JSON with its addresses.  ``GET /__log`` tells what was requested,
``POST /__control`` with JSON changes rate, faults, offers and contents.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FAULTS = (
    "reset",
    "close",
    "stall",
    "flip",
    "short",
    "429",
    "500",
    "503",
    "expired",
    "ignore-range",
    "garbage",
    "416",
    "wrong-range",
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 64 << 10


@dataclass
class Fault:
    """One planned misbehaviour; `after` bytes of the body are sent before it."""

    kind: str
    after: int = 0


@dataclass
class Request:
    """One line of the log."""

    origin: str
    method: str
    path: str
    range_start: int | None
    authorization: str
    range_end: int | None = None
    fault: str = ""
    status: int = 0
    # Bytes of the body that this program handed to its system, and those that reached the
    # client's.  They differ by what waited here when a connection broke.
    sent: int = 0
    delivered: int = 0
    at: float = field(default_factory=time.monotonic)


class FakeHub:
    """In-process hub; use as a context manager.  `plan` is worked off by requests for bytes."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 1,
        rate: int = 0,
        port: int = 0,
        link_life_s: float = 3600.0,
        stall_s: float = 5.0,
        certificate: Path | None = None,
    ) -> None:
        self.folder = folder
        # PEM with certificate and key: both origins then speak TLS.
        self.scheme = "https" if certificate else "http"
        self.rng = random.Random(seed)
        self.rate = rate
        self.link_life_s = link_life_s
        self.stall_s = stall_s
        self.plan: deque[Fault] = deque()
        self.fault_share = 0.0
        self.fault_kinds: tuple[str, ...] = FAULTS
        self.hub_plan: deque[str] = deque()
        self.gated: set[str] = set()
        self.token = "hf_right"
        self.linked = True
        # False: a hub that keeps files without a word about their contents.
        self.tells_hashes = True
        # None: every revision.
        self.known_revisions: set[str] | None = None
        self.direct = False
        self.log: list[Request] = []
        # Called when a fault of kind "changed" comes: replace the file, then the connection breaks.
        self.on_change: Callable[[], None] = lambda: None
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()
        self._next_send = 0.0
        self._servers = [_Server(("127.0.0.1", port), _HubHandler, self)]
        self._servers.append(_Server(("127.0.0.1", 0), _FileHandler, self))
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            for server in self._servers:
                server.socket = context.wrap_socket(
                    server.socket, server_side=True, do_handshake_on_connect=False
                )
        self._threads: list[threading.Thread] = []
        self.secret = f"{self.rng.getrandbits(64):x}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def files_url(self) -> str:
        # Another host name than the hub's, as in the world.
        return f"{self.scheme}://localhost:{self._servers[1].server_address[1]}"

    def __enter__(self) -> FakeHub:
        for server in self._servers:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_exc: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.close_all()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def path(self, name: str) -> Path | None:
        path = (self.folder / name).resolve()
        return path if path.is_relative_to(self.folder.resolve()) and path.is_file() else None

    def sha256(self, path: Path) -> str:
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        if key not in self._hashes:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            self._hashes[key] = digest.hexdigest()
        return self._hashes[key]

    def record(self, request: Request) -> None:
        with self._lock:
            self.log.append(request)

    def next_fault(self, size: int) -> Fault | None:
        """The fault for a body of `size` bytes."""
        with self._lock:
            if self.plan:
                return self.plan.popleft()
            if self.rng.random() < self.fault_share:
                return Fault(self.rng.choice(self.fault_kinds), self.rng.randrange(max(1, size)))
        return None

    def pace(self, count: int) -> None:
        """Hold all bodies together to `rate` bytes per second."""
        if self.rate <= 0:
            return
        with self._lock:
            now = time.monotonic()
            self._next_send = max(self._next_send, now - 0.02) + count / self.rate
            wait = self._next_send - now
        if wait > 0:
            time.sleep(wait)

    def signature(self, name: str, expires: int) -> str:
        return hashlib.sha256(f"{name}{expires}{self.secret}".encode()).hexdigest()[:24]

    def control(self, change: dict[str, Any]) -> None:
        for name in ("rate", "fault_share", "link_life_s", "stall_s", "linked", "direct", "token"):
            if name in change:
                setattr(self, name, change[name])
        if "fault_kinds" in change:
            self.fault_kinds = tuple(change["fault_kinds"])
        if "plan" in change:
            self.plan.extend(Fault(kind, after) for kind, after in change["plan"])
        if "gated" in change:
            self.gated = set(change["gated"])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type, hub: FakeHub) -> None:
        self.hub = hub
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this program is for."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    origin = ""
    # Bytes confirmed when this side broke the connection.
    _at_reset: int | None = None

    @property
    def hub(self) -> FakeHub:
        return self.server.hub

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Quiet."""

    def log_error(self, *args: Any) -> None:
        """Quiet."""

    def start(self) -> tuple[str, dict[str, list[str]], Request]:
        parts = urllib.parse.urlsplit(self.path)
        match = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        request = Request(
            self.origin,
            self.command,
            parts.path,
            int(match[1]) if match else None,
            self.headers.get("Authorization", ""),
            range_end=int(match[2]) + 1 if match and match[2] else None,
        )
        self.hub.record(request)
        return urllib.parse.unquote(parts.path), urllib.parse.parse_qs(parts.query), request

    def answer(
        self, request: Request, status: int, data: bytes = b"", **headers: str | int
    ) -> None:
        request.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
            request.sent = len(data)

    def answer_json(self, request: Request, value: object, status: int = 200) -> None:
        self.answer(request, status, json.dumps(value).encode(), Content_Type="application/json")

    def send_file(self, request: Request, path: Path, headers: dict[str, str]) -> None:
        """A body with ranges and the next fault of the plan."""
        size = path.stat().st_size
        etag = f'"{self.hub.sha256(path)}"'
        start = request.range_start or 0
        fault = self.hub.next_fault(size - start)
        kind = request.fault = fault.kind if fault else ""
        if kind in ("429", "500", "503"):
            extra = {"Retry-After": "0"} if kind == "429" else {}
            self.answer(request, int(kind), b"busy", **extra)
            return
        if kind == "expired":
            self.answer(request, 403, b"<Error><Code>AccessDenied</Code></Error>")
            return
        if_range = self.headers.get("If-Range")
        whole = kind == "ignore-range" or (if_range is not None and if_range != etag)
        if request.range_start is None or whole:
            start, request.status = 0, 200
        elif start >= size or kind == "416":
            self.answer(request, 416, Content_Range=f"bytes */{size}")
            return
        else:
            request.status = 206
            if kind == "wrong-range":
                start = 0
        end = size
        if request.status == 206 and request.range_end is not None:
            end = min(size, request.range_end)
        if kind == "short" and fault is not None:
            end = min(size, start + fault.after)
        self.send_response(request.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("ETag", etag)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        if request.status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        before = _acknowledged(self.connection)
        whole = False
        try:
            whole = self._send_body(request, path, start, end, fault)
        finally:
            # What was sent before an orderly end is still on the way.
            if whole and before is not None:
                self._settle(before + request.sent)
            now = self._at_reset if kind == "reset" else _acknowledged(self.connection)
            request.delivered = request.sent
            if before is not None and now is not None:
                request.delivered = min(request.sent, now - before)

    def _send_body(
        self, request: Request, path: Path, start: int, end: int, fault: Fault | None
    ) -> bool:
        """Whether all of it was sent."""
        kind, after = (fault.kind, fault.after) if fault else ("", 0)
        with path.open("rb") as file:
            file.seek(start)
            position = start
            while position < end:
                data = file.read(min(PIECE, end - position))
                done = position - start
                if (
                    kind in ("reset", "close", "stall", "garbage", "changed")
                    and done + len(data) > after
                ):
                    self._write(request, data[: max(0, after - done)])
                    self._break(kind)
                    return kind in ("close", "garbage")
                if kind == "flip" and done <= after < done + len(data):
                    at = after - done
                    data = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
                self._write(request, data)
                position += len(data)
                self.hub.pace(len(data))
        return True

    def _settle(self, goal: int) -> None:
        """Wait until so many bytes were confirmed, or never will be: 1 s at most."""
        end = time.monotonic() + 1
        while time.monotonic() < end:
            now = _acknowledged(self.connection)
            if now is None or now >= goal or _is_dead(self.connection):
                return
            time.sleep(0.002)

    def _write(self, request: Request, data: bytes) -> None:
        """All of `data`; counts what went before an error too."""
        view = memoryview(data)
        while view:
            count = self.connection.send(view)
            request.sent += count
            view = view[count:]

    def _break(self, kind: str) -> None:
        self.close_connection = True
        if kind == "changed":
            self.hub.on_change()
        if kind == "garbage":
            # More than was announced, of something else: the connection is beyond repair.
            self.wfile.write(b"\0" * 10)
        if kind == "stall":
            # Silence; the other side's stall timeout or cancel ends it.
            self.connection.settimeout(self.hub.stall_s)
            with contextlib.suppress(OSError):
                self.connection.recv(1)
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._at_reset = _acknowledged(self.connection)
            with contextlib.suppress(OSError):
                self.connection.close()
            return
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _acknowledged(connection: socket.socket) -> int | None:
    """Bytes that the other side's system has confirmed (Linux: tcpi_bytes_acked), or None."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, struct.error):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(struct.unpack_from("=Q", info, 120)[0])
    return None


def _is_dead(connection: socket.socket) -> bool:
    """Whether the other side has gone (tcpi_state, TCP_CLOSE in linux/tcp.h)."""
    with contextlib.suppress(OSError):
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7
    return True


class _HubHandler(_Handler):
    origin = "hub"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        path, _, request = self.start()
        data = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if path == "/__control":
            self.hub.control(data)
            self.answer_json(request, {})
        else:
            self.answer(request, 404)

    def do_GET(self) -> None:
        path, query, request = self.start()
        if path == "/__log":
            self.hub.log.remove(request)
            self.answer_json(request, [vars(line) for line in self.hub.log])
            return
        if self.hub.hub_plan:
            kind = self.hub.hub_plan.popleft()
            request.fault = kind
            status, _, wait = kind.partition(":")
            self.answer(request, int(status), b"busy", **({"Retry-After": wait} if wait else {}))
            return
        if path == "/api/models":
            self._search(request, query)
        elif path == "/api/whoami-v2":
            right = request.authorization == f"Bearer {self.hub.token}"
            self.answer_json(request, {"name": "tester"} if right else {}, 200 if right else 401)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            self._model(request, match[1])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if self.hub.known_revisions is None or match[2] in self.hub.known_revisions:
                self._resolve(request, match[1], match[3])
            else:
                self.answer(request, 404, b"", X_Error_Code="RevisionNotFound")
        else:
            self.answer(request, 404, b"not found", X_Error_Code="RepoNotFound")

    def _repositories(self) -> list[str]:
        return sorted(
            f"{owner.name}/{repository.name}"
            for owner in self.hub.folder.iterdir()
            if owner.is_dir()
            for repository in owner.iterdir()
            if repository.is_dir()
        )

    def _facts(self, name: str, *, files: bool) -> dict[str, Any]:
        folder = self.hub.folder / name
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        facts: dict[str, Any] = {
            "_id": hashlib.md5(name.encode()).hexdigest()[:24],
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "private": False,
            "gated": "manual" if name in self.hub.gated else False,
            "downloads": sum(name.encode()) * 10,
            "likes": len(name),
            "tags": ["gguf", "license:apache-2.0", "en"],
            "lastModified": "2026-01-02T03:04:05.000Z",
            "createdAt": "2026-01-02T03:04:05.000Z",
            "pipeline_tag": "text-generation",
            "cardData": {"license": "apache-2.0", "language": ["en"]},
            "siblings": [{"rfilename": path.relative_to(folder).as_posix()} for path in paths],
        }
        if files:
            for path, sibling in zip(paths, facts["siblings"], strict=True):
                size = path.stat().st_size
                sibling.update(
                    size=size,
                    blobId="0" * 40,
                    lfs={"sha256": self.hub.sha256(path), "size": size, "pointerSize": 134},
                )
                if not self.hub.tells_hashes:
                    del sibling["lfs"]
        return facts

    def _search(self, request: Request, query: dict[str, list[str]]) -> None:
        words = " ".join(query.get("search", [])).lower().split()
        author = query.get("author", [""])[0]
        names = [
            name
            for name in self._repositories()
            if all(word in name.lower() for word in words)
            and (not author or name.startswith(author + "/"))
        ]
        found = [self._facts(name, files=False) for name in names]
        found.sort(key=lambda facts: -facts["downloads"])
        self.answer_json(request, found[: int(query.get("limit", ["20"])[0])])

    def _model(self, request: Request, name: str) -> None:
        if not (self.hub.folder / name).is_dir():
            self.answer(request, 404, b"{}", X_Error_Code="RepoNotFound")
            return
        self.answer_json(request, self._facts(name, files=True))

    def _resolve(self, request: Request, name: str, file: str) -> None:
        if name in self.hub.gated and request.authorization != f"Bearer {self.hub.token}":
            status = 403 if request.authorization else 401
            self.answer(request, status, b"gated", X_Error_Code="GatedRepo")
            return
        path = self.hub.path(f"{name}/{file}")
        if path is None:
            self.answer(request, 404, b"no such file", X_Error_Code="EntryNotFound")
            return
        headers = {"X-Repo-Commit": COMMIT}
        if self.hub.linked:
            headers["X-Linked-Etag"] = f'"{self.hub.sha256(path)}"'
            headers["X-Linked-Size"] = str(path.stat().st_size)
        if self.hub.direct:
            self.send_file(request, path, headers)
            return
        expires = int((time.time() + self.hub.link_life_s) * 1000)
        quoted = urllib.parse.quote(f"{name}/{file}")
        signature = self.hub.signature(f"{name}/{file}", expires)
        location = f"{self.hub.files_url}/{quoted}?expires={expires}&signature={signature}"
        self.answer(
            request,
            302,
            b"",
            Location=location,
            ETag='"redirect"',
            **{key.replace("-", "_"): value for key, value in headers.items()},
        )


class _FileHandler(_Handler):
    origin = "files"

    def do_GET(self) -> None:
        path, query, request = self.start()
        name = path.lstrip("/")
        expires = int(query.get("expires", ["0"])[0])
        if query.get("signature", [""])[0] != self.hub.signature(name, expires):
            self.answer(request, 403, b"bad signature")
            return
        if expires < time.time() * 1000:
            request.fault = "link-ran-out"
            self.answer(request, 403, b"<Error><Code>ExpiredToken</Code></Error>")
            return
        file = self.hub.path(name)
        if file is None:
            self.answer(request, 404, b"gone")
            return
        self.send_file(request, file, {})


def main() -> None:
    parser = argparse.ArgumentParser(description="A hub on loopback for tests.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=int, default=0, help="bytes per second, 0 = no limit")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests with a fault")
    parser.add_argument("--gated", action="append", default=[])
    args = parser.parse_args()
    hub = FakeHub(args.folder, seed=args.seed, rate=args.rate, port=args.port)
    hub.fault_share = args.faults
    hub.gated = set(args.gated)
    with hub:
        print(
            json.dumps({"url": hub.url, "files_url": hub.files_url, "pid": os.getpid()}), flush=True
        )
        sys.stdin.read()


if __name__ == "__main__":
    main()
