"""A file behind HTTP that is read in pieces, for headers of weights that are not downloaded.

Blocking; inside a `Connections.action`.
"""

from __future__ import annotations

import re
from typing import Final

import httpx2

from desktop_app.errors import KnownError

from .answers import access_error, origin_of, redirected, retry_after_s
from .connections import Connections

_MAX_REDIRECTS: Final = 8
_TRIES: Final = 6
_LONGEST_WAIT_S: Final = 10.0


class RemoteFile:
    """A `gguf.ByteSource` over ranges.  Raises KnownError when the server knows no ranges."""

    def __init__(
        self,
        connections: Connections,
        url: str,
        *,
        size_bytes: int = 0,
        token: str = "",
        hub_origin: str = "",
    ) -> None:
        self._connections = connections
        self._url = url
        self._final = ""
        self._size_bytes = size_bytes
        self._token = token
        self._hub_origin = hub_origin or origin_of(url)
        self.read_bytes = 0

    @property
    def size_bytes(self) -> int:
        if not self._size_bytes:
            self.read_at(0, 1)
        return self._size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer at the end.  Tries again a few times."""
        if length <= 0:
            return b""
        failure: Exception | None = None
        with self._connections.client(follow_redirects=False) as client:
            for number in range(_TRIES):
                try:
                    data = self._read(client, offset, length)
                except (httpx2.TransportError, _AgainError) as error:
                    failure = error
                    self._final = ""  # a signed link that ran out, or a server that went away
                    wait_s = error.wait_s if isinstance(error, _AgainError) else 0.0
                    if number == _TRIES - 1 or wait_s > _LONGEST_WAIT_S:
                        break  # whoever looks at a header does not wait for minutes
                    self._connections.wait(wait_s or 0.1 * 2**number)
                else:
                    self.read_bytes += len(data)
                    return data
        raise KnownError(
            "network",
            "The file on the hub cannot be read right now. Try again later.",
            detail=f"{type(failure).__name__}: {failure}",
        ) from failure

    def _read(self, client: httpx2.Client, offset: int, length: int) -> bytes:
        url = self._final or self._url
        for _ in range(_MAX_REDIRECTS):
            headers = {
                "Accept-Encoding": "identity",
                "Range": f"bytes={offset}-{offset + length - 1}",
            }
            if self._token and origin_of(url) == self._hub_origin:
                headers["Authorization"] = f"Bearer {self._token}"
            with client.stream("GET", url, headers=headers) as response:
                status = response.status_code
                if 300 <= status < 400 and "location" in response.headers:
                    url = redirected(url, response.headers["location"])
                    continue
                if status == 206:
                    self._final = url
                    return self._take(response, offset, length)
                if status == 200:
                    raise KnownError(
                        "hub-no-ranges",
                        "This server cannot send parts of a file, so its details are known only "
                        "after downloading.",
                    )
                if status == 429 or status >= 500 or origin_of(url) != self._hub_origin:
                    wait_s = retry_after_s(response.headers.get("retry-after", ""))
                    raise _AgainError(f"status {status}", wait_s)
                raise access_error(status, response.headers.get("x-error-code", ""), self._url)
        raise _AgainError("too many redirects")

    def _take(self, response: httpx2.Response, offset: int, length: int) -> bytes:
        ranged = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", "").strip()
        )
        if ranged is None or int(ranged[1]) != offset:
            raise _AgainError("another range than asked for")
        self._size_bytes = int(ranged[2])
        wanted = min(length, self._size_bytes - offset)
        data = bytearray()
        for piece in response.iter_raw():
            data += piece
            if len(data) >= wanted:
                break  # some servers do not stop where they were asked to
        if len(data) < wanted:
            raise _AgainError("less than asked for")
        return bytes(data[:wanted])


class _AgainError(Exception):
    """Worth another try, after `wait_s` seconds where the server asked for that."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
