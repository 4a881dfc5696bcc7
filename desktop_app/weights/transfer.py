"""Download one file so that it always arrives and always is what it claims to be.

The bytes go into ``NAME.part``, what is known about them into ``NAME.part.json``.  Only a file
whose whole SHA-256 was checked gets its name; until then an older file of that name stays.  A
broken, killed or paused download goes on where it stopped, in this run or the next one.

Blocking: run it in a worker thread.  `stop` (an Event) ends it within 0.2 s from any thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

import httpx2

from desktop_app.errors import KnownError

from .answers import (
    access_error,
    content_range,
    count_of,
    etag_of,
    origin_of,
    redirected,
    retry_after_s,
)
from .connections import Connections, cancelled_error
from .part_file import PartFile
from .profile_file import disk_error

_MAX_REDIRECTS: Final = 8
_MAX_REFUSED_LINKS: Final = 6
# So many answers in a row that do not go on where the part ends, before it is given up.
_MAX_DOUBTS: Final = 4
# Fetching so much again is cheaper than asking again.
_SMALL_PART: Final = 256 << 10
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PROGRESS_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch.  `url` is the hub's address of it; size and hash as the hub listed them."""

    url: str
    size_bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a transfer is.  `total_bytes` is 0 while unknown."""

    # "connecting", "downloading", "waiting" (for the network or the hub), "checking"
    phase: str
    done_bytes: int
    total_bytes: int
    # While waiting: how long, and why (a KnownError code).
    wait_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """A file that has arrived."""

    path: Path
    sha256: str
    size_bytes: int
    # False where the server tells no hash to check against.
    verified: bool
    # Bytes that came over the network in this run, and how often it broke.
    fetched_bytes: int
    breaks: int
    commit: str = ""
    # Clean starts, because contents were false or had changed.
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Patience:
    """How a transfer waits.  Seconds."""

    backoff_s: float = 0.5
    longest_wait_s: float = 60.0
    # Give up when nothing arrived for this long.
    without_progress_s: float = 300.0


class SpeedLimit:
    """Bytes per second shared by everything that passes through; 0 = no limit.  Thread-safe."""

    def __init__(self, bytes_per_s: int = 0) -> None:
        self.bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._next = 0.0

    def take(self, count: int, stop: threading.Event) -> None:
        """Wait until `count` more bytes are allowed, or until `stop` is set."""
        rate = self.bytes_per_s
        if rate <= 0:
            return
        with self._lock:
            now = time.monotonic()
            # At most 50 ms may be caught up, so that a pause does not end in a burst.
            self._next = max(self._next, now - 0.05) + count / rate
            wait = self._next - now
        if wait > 0.001:
            stop.wait(wait)


@dataclass(slots=True)
class _Response:
    """The answer that carries the bytes, after the redirects."""

    response: httpx2.Response
    # From the hub: the content's hash and size behind its redirect.
    linked_etag: str
    linked_size: int
    commit: str
    from_hub: bool


class _BrokenError(Exception):
    """The connection broke or the server asked to wait: try again."""

    def __init__(self, reason: str, *, wait_s: float = 0.0, link: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        self.link = link


class Transfer:
    """One download of one file.  `token` is sent to `hub_origin` and nowhere else."""

    def __init__(
        self,
        connections: Connections,
        wanted: Wanted,
        target: Path,
        *,
        token: str = "",
        hub_origin: str = "",
        limit: SpeedLimit | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._connections = connections
        self._wanted = wanted
        self._target = target
        self._token = token
        self._hub_origin = hub_origin or origin_of(wanted.url)
        self._limit = limit or SpeedLimit()
        self._patience = patience or Patience()
        self._part = PartFile(target)
        self._fetched = 0
        self._breaks = 0
        self._doubts = 0
        self._commit = ""
        self._total = wanted.size_bytes
        self._told = 0.0
        self._progress: Callable[[Progress], None] = lambda _progress: None
        self._stop = threading.Event()

    def run(
        self,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Result:
        """Fetch, check and name the file.  Blocks; `progress` is called on this thread.

        Raises KnownError: ``cancelled`` (the part is kept; `discard` removes it), ``offline``,
        ``disk-full``, ``disk-error``, ``busy``, ``network``, ``certificate``, ``hub-login``,
        ``hub-gated``, ``hub-missing``, ``hub-refused``, ``weights-hash``.
        """
        self._progress = progress or self._progress
        self._stop = stop or self._stop
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            with self._part, self._connections.client(follow_redirects=False) as client:
                existing = self._already_there()
                if existing is not None:
                    return existing
                self._part.recover(self._rehash_progress)
                for attempt in (1, 2, 3):
                    self._fetch_all(client)
                    if self._hash_is_right():
                        break
                    # A flipped bit somewhere: nothing tells where, so all of it is fetched again.
                    self._part.reset()
                    if attempt == 3:
                        raise KnownError(
                            "weights-hash",
                            "The file arrived three times with wrong contents, so it was not kept. "
                            "Try again later or over another network.",
                        )
                return self._finish()
        except OSError as error:
            raise disk_error(error, self._target) from error

    # --- before and after

    def _already_there(self) -> Result | None:
        """The file has its name already and is what is wanted (a crash right after renaming)."""
        expected = self._wanted.sha256
        if self._part.exists() or not expected or not self._target.is_file():
            return None
        if self._wanted.size_bytes and self._target.stat().st_size != self._wanted.size_bytes:
            return None
        size = self._target.stat().st_size
        digest = hashlib.sha256()
        done = 0
        with self._target.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                done += len(piece)
                self._rehash_progress(done, size)
        if digest.hexdigest() != expected:
            return None
        self._part.remove_leftovers()
        return Result(self._target, expected, size, True, 0, 0)

    def _rehash_progress(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise cancelled_error()
        self._tell(Progress("checking", done, total))

    def _expected_hash(self) -> str:
        facts = self._part.facts
        return facts.sha256 if _SHA256.fullmatch(facts.sha256) else ""

    def _hash_is_right(self) -> bool:
        expected = self._expected_hash()
        return not expected or self._part.digest() == expected

    def _finish(self) -> Result:
        digest = self._part.digest()
        size = self._part.size
        verified = bool(self._expected_hash())
        if not self._part.flush(self._stop):
            raise cancelled_error()
        self._part.rename()
        self._progress(Progress("checking", size, size))
        return Result(
            self._target,
            digest,
            size,
            verified,
            self._fetched,
            self._breaks,
            self._commit,
            self._part.resets,
        )

    # --- the loop over breaks

    def _fetch_all(self, client: httpx2.Client) -> None:
        """Until the part is complete.  Every break is followed by another try."""
        failures = refused_links = 0
        last_progress = time.monotonic()
        while not self._is_complete():
            if self._stop.is_set():
                raise cancelled_error()
            before = self._part.size
            try:
                self._fetch_once(client)
                # Servers without lengths end a whole file like this.
                if not self._part.facts.size_bytes:
                    if not self._part.size:
                        raise _BrokenError("empty")
                    self._part.set_facts(replace(self._part.facts, size_bytes=self._part.size))
                    continue
                if self._part.size < self._part.facts.size_bytes:
                    raise _BrokenError("cut-short")
            except _BrokenError as broken:
                self._breaks += 1
                if self._part.size != before:
                    failures = refused_links = 0
                    last_progress = time.monotonic()
                failures += 1
                refused_links += broken.link
                self._give_up_or_wait(broken, failures, refused_links, last_progress)

    def _is_complete(self) -> bool:
        size = self._part.facts.size_bytes
        return size > 0 and self._part.size == size

    def _give_up_or_wait(
        self, broken: _BrokenError, failures: int, refused_links: int, last_progress: float
    ) -> None:
        if refused_links > _MAX_REFUSED_LINKS and broken.reason == "wrong-size":
            raise KnownError(
                "hub-changed",
                "The file on the hub is not the one that was listed. Look at the list of files "
                "again and start anew.",
            )
        if refused_links > _MAX_REFUSED_LINKS:
            raise KnownError(
                "hub-refused",
                "The hub's file server refuses this file again and again. Try again later.",
                detail=broken.reason,
            )
        idle = time.monotonic() - last_progress
        if idle > self._patience.without_progress_s:
            raise KnownError(
                "network",
                "The download cannot go on: the network or the hub does not answer. What has "
                "arrived is kept; resume when you are connected.",
                detail=broken.reason,
            )
        wait = min(
            self._patience.longest_wait_s, self._patience.backoff_s * 2 ** min(failures - 1, 16)
        )
        # Many waiting programs must not all come back at the same moment.
        wait = broken.wait_s or wait * random.uniform(0.5, 1.0)
        self._told = 0.0
        self._tell(Progress("waiting", self._part.size, self._total, wait, broken.reason))
        if self._stop.wait(wait):
            raise cancelled_error()

    # --- one connection

    def _fetch_once(self, client: httpx2.Client) -> None:
        self._tell(Progress("connecting", self._part.size, self._total))
        with self._open(client) as answer:
            skip = self._place(answer)
            self._total = self._part.facts.size_bytes
            self._check_space()
            self._receive(answer.response, skip)

    @contextlib.contextmanager
    def _open(self, client: httpx2.Client) -> Iterator[_Response]:
        """Follow the hub to the bytes.  Network failures come out as _BrokenError."""
        try:
            answer = self._follow(client)
        except httpx2.TransportError as error:
            raise self._broken_by(error) from error
        try:
            yield answer
        except httpx2.TransportError as error:
            raise self._broken_by(error) from error
        finally:
            answer.response.close()

    def _broken_by(self, error: httpx2.TransportError) -> _BrokenError:
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            raise KnownError(
                "certificate",
                "The hub's certificate could not be checked. A proxy or virus scanner may sit in "
                "between: set REQUESTS_CA_BUNDLE to its certificate, or use another network.",
                detail=text,
            ) from error
        return _BrokenError(type(error).__name__)

    def _follow(self, client: httpx2.Client) -> _Response:
        url = self._wanted.url
        linked_etag, linked_size, commit = "", 0, ""
        for _ in range(_MAX_REDIRECTS):
            from_hub = origin_of(url) == self._hub_origin
            request = client.build_request("GET", url, headers=self._headers(from_hub))
            response = client.send(request, stream=True)
            headers = response.headers
            if from_hub:
                linked_etag = etag_of(headers.get("x-linked-etag", "")) or linked_etag
                linked_size = count_of(headers.get("x-linked-size", "")) or linked_size
                commit = headers.get("x-repo-commit", "") or commit
            if not (300 <= response.status_code < 400 and "location" in headers):
                answer = _Response(response, linked_etag, linked_size, commit, from_hub)
                self._check_status(answer)
                return answer
            response.close()
            if from_hub and self._identity_changed(linked_etag):
                self._part.reset()
            url = redirected(url, headers["location"])
        raise _BrokenError("too-many-redirects", link=True)

    def _headers(self, from_hub: bool) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if from_hub and self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if self._part.size:
            headers["Range"] = f"bytes={self._part.size}-"
            facts = self._part.facts
            # Where the hub names the content, that is compared instead: mirrors of one content
            # have different ETags.
            if not facts.linked_etag and facts.etag and not facts.etag.startswith("W/"):
                headers["If-Range"] = facts.etag
        return headers

    def _identity_changed(self, linked_etag: str) -> bool:
        known = self._part.facts.linked_etag
        return bool(self._part.size and known and linked_etag and known != linked_etag)

    def _check_status(self, answer: _Response) -> None:
        status = answer.response.status_code
        if status in (200, 206):
            return
        answer.response.close()
        if status == 416:
            self._doubt("range-refused")
        headers = answer.response.headers
        if status == 429 or status >= 500:
            raise _BrokenError(
                f"http-{status}", wait_s=retry_after_s(headers.get("retry-after", ""))
            )
        if not answer.from_hub:
            # A signed link that ran out: the hub gives a new one.
            raise _BrokenError(f"link-{status}", link=True)
        raise access_error(status, headers.get("x-error-code", ""), self._wanted.url)

    def _doubt(self, reason: str) -> NoReturn:
        """Ask again: one wrong answer is no reason to throw away what has arrived; five are."""
        self._doubts += 1
        if self._doubts > _MAX_DOUBTS:
            self._doubts = 0
            self._part.reset()
        raise _BrokenError(reason)

    def _place(self, answer: _Response) -> int:
        """Make the part ready for this answer; returns how many bytes of it are there already."""
        response = answer.response
        etag = response.headers.get("etag", "")
        ranged = content_range(response.headers.get("content-range", ""))
        if response.status_code == 206:
            if ranged is None or ranged[0] != self._part.size:
                self._doubt("wrong-range")
            total = ranged[1]
        else:
            total = count_of(response.headers.get("content-length", ""))
        if answer.commit:
            self._commit = answer.commit
        size, digest = self._identity(answer, total)
        if total and size and total != size:
            # Either a lying server or a file that changed since it was listed.
            raise _BrokenError("wrong-size", link=True)
        facts = self._part.facts
        changed = self._identity_changed(answer.linked_etag) or (
            bool(self._part.size) and bool(facts.size_bytes) and size != facts.size_bytes
        )
        if changed and response.status_code == 206:
            self._part.reset()
            raise _BrokenError("changed")
        same = not changed and (
            bool(answer.linked_etag) or (etag == facts.etag and not etag.startswith("W/"))
        )
        if response.status_code == 200 and self._part.size:
            if not same:
                self._part.reset()
            elif self._part.size > _SMALL_PART and self._doubts < _MAX_DOUBTS:
                # One server of many that ignores ranges; the next one may go on where this ended.
                self._doubts += 1
                raise _BrokenError("range-ignored")
        self._doubts = 0
        self._part.set_facts(
            replace(
                self._part.facts,
                url=self._wanted.url,
                etag=etag,
                linked_etag=answer.linked_etag,
                size_bytes=size,
                sha256=digest,
            )
        )
        return self._part.size if response.status_code == 200 else 0

    def _identity(self, answer: _Response, total: int) -> tuple[int, str]:
        """Size and SHA-256 that the whole file must have: as the hub says now, else as it listed.

        The hub's word now is better: a file may have been replaced since it was listed.
        """
        if _SHA256.fullmatch(answer.linked_etag):
            return answer.linked_size or total, answer.linked_etag
        if self._wanted.sha256:
            return self._wanted.size_bytes or total, self._wanted.sha256
        return total or answer.linked_size or self._wanted.size_bytes, ""

    def _check_space(self) -> None:
        check_space(self._target.parent, max(0, self._part.facts.size_bytes - self._part.size))

    def _receive(self, response: httpx2.Response, skip: int) -> None:
        """Write what comes.  `skip` bytes are there already: a server that ignores ranges."""
        unchecked = 0
        position = 0
        for piece in response.iter_raw():
            if self._stop.is_set():
                raise cancelled_error()
            self._fetched += len(piece)
            fresh = piece
            if position < skip:
                old = piece[: skip - position]
                if not self._part.equals(position, old):
                    # Another content without saying so: what was there is worth nothing.
                    self._part.reset()
                    raise _BrokenError("changed")
                position += len(old)
                fresh = piece[len(old) :]
            if fresh:
                total = self._part.facts.size_bytes
                if total and self._part.size + len(fresh) > total:
                    self._part.reset()
                    raise _BrokenError("too-long")
                self._part.append(fresh)
                unchecked += len(fresh)
            if unchecked > 64 << 20:
                unchecked = 0
                self._check_space()
            self._tell(Progress("downloading", max(position, self._part.size), self._total))
            self._limit.take(len(piece), self._stop)

    def _tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._told >= _PROGRESS_S or progress.phase == "waiting":
            self._told = now
            self._progress(progress)


def check_space(folder: Path, left_bytes: int) -> None:
    """Raise KnownError ``disk-full`` when `left_bytes` more have no room on the folder's disk.

    `folder` need not be there yet.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    # A full disk hurts every program: leave some.
    if left_bytes + (64 << 20) > free:
        raise KnownError(
            "disk-full",
            f"There is not enough space: {_gigabytes(left_bytes)} are still to come and "
            f"{_gigabytes(free)} are free. Free some space and resume; what has arrived is kept.",
        )


def discard(target: Path) -> None:
    """Remove what a download that will not go on has left beside `target`."""
    PartFile(target).discard()


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
