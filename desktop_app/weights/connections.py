"""The one place where Grove connects to anything: offline switch, log, proxies, certificates.

Every request runs inside `Connections.action`, which names what the user asked for.  A request
outside of an action is a bug and raises.  With the offline switch on, no socket is opened and no
byte passes over those that are open.  What was connected is kept for the user to read: host,
purpose, bytes and time; never headers, tokens or contents.

Thread-safe.  An action belongs to the thread that opened it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpcore2
import httpx2

from desktop_app.errors import KnownError
from desktop_app.version import VERSION

CONNECT_TIMEOUT_S: Final = 15.0
STALL_TIMEOUT_S: Final = 30.0
# A cancel is noticed within this time, also while connecting or while nothing arrives.
_POLL_S: Final = 0.05
_READ_BYTES: Final = 256 << 10
# What waits unread in this machine when a program is killed must come again: near hubs may have no
# more on the way than a line of 10 Gbit/s needs (bytes per microsecond of the round trip).
_LINE_BYTES_PER_US: Final = 1250
_SMALLEST_WINDOW: Final = 256 << 10
_LARGEST_LIMITED_WINDOW: Final = 512 << 10
_KEPT_ENTRIES: Final = 2_000
_LOG_BYTES: Final = 4 << 20

_TO_HTTPX: Final = {
    getattr(httpcore2, name): getattr(httpx2, name)
    for name in (
        "ConnectTimeout",
        "ReadTimeout",
        "WriteTimeout",
        "PoolTimeout",
        "ConnectError",
        "ReadError",
        "WriteError",
        "ProxyError",
        "UnsupportedProtocol",
        "LocalProtocolError",
        "RemoteProtocolError",
    )
}


def offline_error() -> KnownError:
    return KnownError(
        "offline",
        "Grove is set to stay offline. Switch “Offline” off to search the hub or download.",
    )


def cancelled_error() -> KnownError:
    return KnownError("cancelled", "The download was cancelled.")


@dataclass(slots=True)
class ConnectionEntry:
    """What one action of the user connected to."""

    at_ms: int
    # "search", "files", "header", "download", "token"
    purpose: str
    # What it was about: a repository or file, or the words of a search.
    subject: str
    hosts: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    received_bytes: int = 0
    duration_ms: int = 0
    is_open: bool = True


class _Action:
    """The action that the current thread is in."""

    def __init__(self, entry: ConnectionEntry, cancel: threading.Event | None) -> None:
        self.entry = entry
        self.cancel = cancel

    def check(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise cancelled_error()


class Connections:
    """See the module.  `log_file` is ``<profile>/connections.jsonl``; None keeps no log on disk."""

    def __init__(
        self,
        log_file: Path | None = None,
        *,
        offline: bool = False,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self._log_file = log_file
        self._offline = threading.Event()
        if offline:
            self._offline.set()
        self._current = threading.local()
        self._lock = threading.Lock()
        self._entries: deque[ConnectionEntry] = deque(maxlen=_KEPT_ENTRIES)
        self._listeners: list[Callable[[], None]] = []
        self.stall_timeout_s = stall_timeout_s
        self._transport: _Transport | None = None
        self._read_log()

    # --- the switch

    @property
    def offline(self) -> bool:
        return self._offline.is_set()

    def set_offline(self, offline: bool) -> None:
        """Take effect at once: open connections are refused their next byte and closed."""
        if offline:
            self._offline.set()
            self.close()
        else:
            self._offline.clear()
        self._tell()

    def close(self) -> None:
        """Close idle connections.  Requests that run in other threads end by themselves."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    # --- requests

    @contextlib.contextmanager
    def action(
        self, purpose: str, subject: str, *, cancel: threading.Event | None = None
    ) -> Iterator[ConnectionEntry]:
        """All requests of this thread inside belong to one line of the log.

        Raises KnownError ``offline`` when the switch is on.
        """
        if self.offline:
            raise offline_error()
        entry = ConnectionEntry(int(time.time() * 1000), purpose, subject)
        before = getattr(self._current, "action", None)
        self._current.action = _Action(entry, cancel)
        begin = time.monotonic()
        with self._lock:
            self._entries.append(entry)
        try:
            yield entry
        finally:
            self._current.action = before
            entry.duration_ms = int((time.monotonic() - begin) * 1000)
            entry.is_open = False
            self._finish(entry)

    def client(
        self, *, failure: Callable[[Exception], KnownError] | None = None, **options: Any
    ) -> httpx2.Client:
        """A client whose requests go through here.  Close it after use; the sockets are shared.

        `failure` turns a connection that fails into a KnownError, for callers without retries.
        """
        options.setdefault("timeout", httpx2.Timeout(self.stall_timeout_s))
        return httpx2.Client(
            transport=_Shared(self, failure),
            trust_env=False,  # proxies and certificates of the environment are handled here
            headers={"User-Agent": f"grove/{VERSION}", **options.pop("headers", {})},
            **options,
        )

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request.  Only the transport of `client` calls this."""
        action = self.current()
        action.check()
        host = request.url.netloc.decode("ascii", "replace")
        with self._lock:
            if host not in action.entry.hosts:
                action.entry.hosts.append(host)
            if self._transport is None:
                self._transport = _Transport(self)
            transport = self._transport
        return transport.handle_request(request)

    def current(self) -> _Action:
        """The action of this thread.  Raises when there is none, and when Grove is offline."""
        if self.offline:
            raise offline_error()
        action = getattr(self._current, "action", None)
        if action is None:
            raise RuntimeError("a connection outside of an action of the user")
        assert isinstance(action, _Action)
        return action

    def wait(self, seconds: float) -> None:
        """Sleep inside an action until it is cancelled.  Raises KnownError ``cancelled``."""
        action = self.current()
        if action.cancel is None:
            time.sleep(seconds)
        elif action.cancel.wait(seconds):
            raise cancelled_error()

    # --- the log

    def entries(self) -> list[ConnectionEntry]:
        """Newest first, those of earlier runs included."""
        with self._lock:
            return list(reversed(self._entries))

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Called when an action ends or the switch changes, on that thread."""
        self._listeners.append(listener)

    def clear_log(self) -> None:
        with self._lock:
            self._entries = deque((e for e in self._entries if e.is_open), maxlen=_KEPT_ENTRIES)
            if self._log_file is not None:
                self._log_file.unlink(missing_ok=True)
        self._tell()

    def _finish(self, entry: ConnectionEntry) -> None:
        with self._lock:
            if not entry.hosts:
                # Nothing was connected: refused, cancelled or answered from memory.
                with contextlib.suppress(ValueError):
                    self._entries.remove(entry)
            elif self._log_file is not None:
                # A log that cannot be written must not stop a download that works.
                with contextlib.suppress(OSError):
                    self._append(self._log_file, entry)
        self._tell()

    def _append(self, log_file: Path, entry: ConnectionEntry) -> None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        if log_file.exists() and log_file.stat().st_size > _LOG_BYTES:
            lines = log_file.read_text(encoding="utf-8").splitlines()[-_KEPT_ENTRIES // 2 :]
            log_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")

    def _read_log(self) -> None:
        if self._log_file is None:
            return
        try:
            lines = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines[-_KEPT_ENTRIES:]:
            # A line cut by a crash is skipped.
            with contextlib.suppress(ValueError, TypeError):
                self._entries.append(ConnectionEntry(**json.loads(line)))

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()


class _Shared(httpx2.BaseTransport):
    """A client's door to the shared transport; closing the client leaves that open."""

    def __init__(
        self, connections: Connections, failure: Callable[[Exception], KnownError] | None
    ) -> None:
        self._connections = connections
        self._failure = failure

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return self._connections.handle(request)
        except httpx2.TransportError as error:
            if self._failure is None:
                raise
            raise self._failure(error) from error


class _Transport(httpx2.BaseTransport):
    """httpcore pools, one for each proxy in use, over the guarded backend."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._pools: dict[str, httpcore2.ConnectionPool] = {}
        self._context: ssl.SSLContext | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.SyncByteStream)
        url = request.url
        inner = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        proxy = proxy_for(url.scheme, url.host)
        try:
            with _as_httpx():
                response = self._pool(proxy).handle_request(inner)
        except httpx2.ProxyError as error:
            if str(error).startswith(("407", "403")):
                raise _proxy_error(str(error)) from error
            raise  # one that is overloaded: worth another try
        if proxy and response.status == 407:
            response.close()
            raise _proxy_error("407")
        assert isinstance(response.stream, Iterable)
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response.stream),
            extensions=response.extensions,
        )

    def close(self) -> None:
        with self._lock:
            pools = list(self._pools.values())
            self._pools = {}
        for pool in pools:
            # Busy connections end on their own threads; idle ones close here.
            with contextlib.suppress(RuntimeError):
                pool.close()

    def _pool(self, proxy: str) -> httpcore2.ConnectionPool:
        with self._lock:
            if proxy not in self._pools:
                if self._context is None:
                    self._context = certificate_context()
                self._pools[proxy] = httpcore2.ConnectionPool(
                    ssl_context=self._context,
                    proxy=_proxy(proxy) if proxy else None,
                    max_connections=16,
                    max_keepalive_connections=4,
                    keepalive_expiry=15.0,
                    network_backend=_Backend(self._connections),
                )
            return self._pools[proxy]


class _Body(httpx2.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx():
            yield from self._stream

    def close(self) -> None:
        if hasattr(self._stream, "close"):
            self._stream.close()


@contextlib.contextmanager
def _as_httpx() -> Iterator[None]:
    """httpcore's errors as the same errors of httpx, which huggingface_hub knows."""
    try:
        yield
    except tuple(_TO_HTTPX) as error:
        wanted = next(_TO_HTTPX[kind] for kind in type(error).__mro__ if kind in _TO_HTTPX)
        raise wanted(str(error)) from error


def certificate_context() -> ssl.SSLContext:
    """The system's certificates, or the bundle that the environment names."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if bundle := os.environ.get(name):
            path = Path(bundle)
            if path.is_dir():
                return ssl.create_default_context(capath=bundle)
            try:
                return ssl.create_default_context(cafile=bundle)
            except OSError as error:
                raise KnownError(
                    "certificates-missing",
                    f"The certificates named by {name} cannot be read. Correct that setting.",
                    detail=str(error),
                ) from error
    return httpcore2.default_ssl_context()


def proxy_for(scheme: str, host: str) -> str:
    """The proxy that the environment or system sets for this host, "" for none."""
    if host in ("localhost", "::1") or host.startswith("127."):
        return ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all") or ""
    return "" if not proxy or urllib.request.proxy_bypass(host) else proxy


def _proxy_error(said: str) -> KnownError:
    if said.startswith("407"):
        return KnownError(
            "proxy",
            "The proxy of your network wants a name and password. Set HTTPS_PROXY to an address "
            "like http://name:password@proxy:3128 and start Grove again.",
            detail=said,
        )
    return KnownError(
        "proxy",
        "The proxy of your network does not let Grove reach the hub. Ask those who run it, or use "
        "another network.",
        detail=said,
    )


def _proxy(address: str) -> httpcore2.Proxy:
    parts = urllib.parse.urlsplit(address if "//" in address else f"http://{address}")
    if parts.scheme.startswith("socks"):
        raise KnownError(
            "proxy-unsupported",
            "SOCKS proxies are not supported. Set an HTTP proxy instead.",
        )
    auth = None
    if parts.username is not None:
        user, password = (urllib.parse.unquote(t or "") for t in (parts.username, parts.password))
        auth = (user, password)
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return httpcore2.Proxy(urllib.parse.urlunsplit(parts), auth=auth)


class _Backend(httpcore2.NetworkBackend):
    """Opens sockets, unless Grove is offline; gives up as soon as the action is cancelled."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the transfer's read timeout is too long here
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        action = self._connections.current()
        stream = _interruptible(
            action,
            lambda: self._inner.connect_tcp(
                host, port, CONNECT_TIMEOUT_S, local_address, socket_options
            ),
        )
        connection = stream.get_extra_info("socket")
        if isinstance(connection, socket.socket):
            limit_window(connection)
        return _Stream(stream, self._connections)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


def limit_window(connection: socket.socket) -> None:
    """Let a hub that is near (same machine, same network) send ahead 256 to 512 KiB, not 6 MB.

    Linux grows the receive buffer to `net.ipv4.tcp_rmem` whatever the distance.  The round trip is
    the kernel's own measure of the handshake (tcpi_rtt in µs, at offset 68 of struct tcp_info in
    linux/tcp.h); within this machine a busy processor makes it long, so there the address tells.
    Far hubs need large buffers and keep them.
    """
    if sys.platform != "linux":
        return
    try:
        round_trip_us = 0
        host = str(connection.getpeername()[0])
        if host != "::1" and not host.removeprefix("::ffff:").startswith("127."):
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            (round_trip_us,) = struct.unpack_from("=I", info, 68)
        window = max(_SMALLEST_WINDOW, round_trip_us * _LINE_BYTES_PER_US)
        if window <= _LARGEST_LIMITED_WINDOW:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, window)
    except (OSError, struct.error):
        return  # a kernel that does not tell: its own choice stays


def _interruptible(
    action: _Action, connect: Callable[[], httpcore2.NetworkStream]
) -> httpcore2.NetworkStream:
    """Run a blocking connect (names are looked up there) so that a cancel need not wait for it."""
    if action.cancel is None:
        return connect()
    done = threading.Event()
    result: list[httpcore2.NetworkStream] = []
    failure: list[BaseException] = []
    abandoned = threading.Event()

    def work() -> None:
        try:
            stream = connect()
            if abandoned.is_set():
                stream.close()
            result.append(stream)
        except Exception as error:  # noqa: BLE001 - handed to the waiting thread
            failure.append(error)
        done.set()

    threading.Thread(target=work, daemon=True, name="grove-connect").start()
    while not done.wait(_POLL_S):
        if action.cancel.is_set():
            abandoned.set()
            raise cancelled_error()
    if failure:
        raise failure[0]
    return result[0]


class _Stream(httpcore2.NetworkStream):
    """A socket that counts its bytes, obeys the switch, and wakes often to see a cancel."""

    def __init__(self, inner: httpcore2.NetworkStream, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # Fewer and larger pieces than httpcore asks for cost less at 200 MB/s.
        max_bytes = max(max_bytes, _READ_BYTES)
        action = self._connections.current()
        deadline = time.monotonic() + (timeout or self._connections.stall_timeout_s)
        for _ in itertools.count():
            action.check()
            try:
                data = self._inner.read(max_bytes, _POLL_S)
                break
            except httpcore2.ReadTimeout:
                if time.monotonic() >= deadline:
                    raise
                self._connections.current()  # raises when the switch went on meanwhile
        action.entry.received_bytes += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        action = self._connections.current()
        action.check()
        self._inner.write(buffer, timeout or self._connections.stall_timeout_s)
        action.entry.sent_bytes += len(buffer)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - as in connect_tcp
    ) -> httpcore2.NetworkStream:
        action = self._connections.current()
        stream = _interruptible(
            action,
            lambda: self._inner.start_tls(ssl_context, server_hostname, CONNECT_TIMEOUT_S),
        )
        return _Stream(stream, self._connections)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
