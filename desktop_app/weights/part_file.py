"""The file of a download that has not arrived yet, and what is known about it.

``NAME.part`` holds the bytes from the start, ``NAME.part.json`` the facts by which a later run
decides whether they can be used.  The facts are on disk before the first byte is.  A lock keeps
two programs from writing into one part.

One thread at a time, except that helper threads hash and flush to disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import psutil

from desktop_app.errors import KnownError

from .profile_file import sync_folder

_FLUSH_BYTES: Final = 64 << 20
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about the content of a part."""

    url: str = ""
    etag: str = ""
    linked_etag: str = ""
    size_bytes: int = 0
    sha256: str = ""
    # So many bytes were flushed to disk: all that counts after a power cut.
    flushed_bytes: int = 0
    boot_time: int = 0


class _LateHash:
    """SHA-256 on a thread of its own, so that receiving and writing go on meanwhile.

    At 200 MB/s a third of a core is hashing.  Up to 16 pieces wait, 4 MB as they come.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._waiting: queue.Queue[bytes | memoryview | None] = queue.Queue(maxsize=16)
        self._thread: threading.Thread | None = None
        self._dropped = False

    def update(self, data: bytes | memoryview) -> None:
        """Hash `data`, which must not change any more, soon."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="grove-hash")
            self._thread.start()
        self._waiting.put(data)

    def settle(self) -> None:
        """Wait for what is still to hash (some ms), and end the thread."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def drop(self) -> None:
        """End the thread without hashing what waits: nobody wants the digest any more."""
        self._dropped = True
        self.settle()

    def hexdigest(self) -> str:
        assert not self._dropped, "the hash was given up"
        self.settle()
        return self._hash.hexdigest()

    def _work(self) -> None:
        while (data := self._waiting.get()) is not None:
            if not self._dropped:
                self._hash.update(data)


class PartFile:
    """A context manager: opened and locked inside, closed and unlocked after."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._facts_path = target.with_name(target.name + ".part.json")
        self._facts_new = target.with_name(target.name + ".part.json.new")
        self.facts = Facts()
        self.size = 0
        # How often usable-looking bytes were thrown away.
        self.resets = 0
        self._hash = _LateHash()
        self._file: BinaryIO | None = None
        self._facts_lock = threading.RLock()
        self._flusher: threading.Thread | None = None
        self._generation = 0
        self._unflushed = 0

    def exists(self) -> bool:
        """Whether an earlier run left bytes."""
        return self.path.exists() and self.path.stat().st_size > 0

    def __enter__(self) -> PartFile:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._close()

    def recover(self, progress: Callable[[int, int], None]) -> None:
        """Open the part and hash what is usable of it; `progress` may raise to stop."""
        self._open()
        assert self._file is not None
        self.facts = self._read_facts()
        have = os.fstat(self._file.fileno()).st_size
        if not self.facts.url:
            have = 0  # bytes of unknown origin
        elif not _same_boot(self.facts.boot_time):
            # The computer was restarted: blocks that were not flushed may hold anything.
            have = min(have, self.facts.flushed_bytes)
        if self.facts.size_bytes:
            have = min(have, self.facts.size_bytes)
        self._file.truncate(have)
        self._file.seek(0)
        while self.size < have:
            piece = self._file.read(min(1 << 20, have - self.size))
            if not piece:
                break
            self._hash.update(piece)
            self.size += len(piece)
            progress(self.size, self.facts.size_bytes or have)

    def set_facts(self, facts: Facts) -> None:
        """Remember what the server says; on disk before this returns."""
        with self._facts_lock:
            boot = self.facts.boot_time if _same_boot(self.facts.boot_time) else _boot_time()
            facts = replace(facts, flushed_bytes=self.facts.flushed_bytes, boot_time=boot)
            if facts != self.facts:
                self._write_facts(facts)

    def append(self, data: bytes) -> None:
        """Write at the end.  Raises OSError; what was written before stays usable."""
        assert self._file is not None
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            self._hash.update(view[:written])
            self.size += written
            self._unflushed += written
            view = view[written:]
        if self._unflushed >= _FLUSH_BYTES and (
            self._flusher is None or not self._flusher.is_alive()
        ):
            self._unflushed = 0
            # A descriptor of its own: a cancel must not wait for a slow disk.
            work = (os.dup(self._file.fileno()), self.size, self._generation)
            self._flusher = threading.Thread(
                target=self._flush, args=work, daemon=True, name="grove-flush"
            )
            self._flusher.start()

    def equals(self, offset: int, data: bytes) -> bool:
        """Whether the part holds `data` at `offset`."""
        assert self._file is not None
        self._file.seek(offset)
        same = self._file.read(len(data)) == data
        self._file.seek(self.size)
        return same

    def reset(self) -> None:
        """Throw the bytes away and begin a clean file."""
        self._leave_flusher()
        assert self._file is not None
        self.resets += self.size > 0
        self._file.seek(0)
        self._file.truncate(0)
        self.size = 0
        self._unflushed = 0
        self._start_hash()
        self._write_facts(Facts(url=self.facts.url))

    def digest(self) -> str:
        """SHA-256 of all bytes so far."""
        return self._hash.hexdigest()

    def flush(self, stop: threading.Event) -> bool:
        """Have everything on disk; False when `stop` was set first.  Raises OSError.

        A slow disk may need many seconds, and a cancel does not wait for it.
        """
        self._leave_flusher()
        assert self._file is not None
        handle = os.dup(self._file.fileno())
        failures: list[OSError] = []
        done = threading.Event()

        def work() -> None:
            try:
                os.fsync(handle)
            except OSError as error:
                failures.append(error)
            finally:
                os.close(handle)
                done.set()

        worker = threading.Thread(target=work, daemon=True, name="grove-flush")
        worker.start()
        while not done.wait(_POLL_S):
            if stop.is_set():
                return False
        worker.join()
        if failures:
            raise failures[0]
        return True

    def rename(self) -> None:
        """Give the file its name, after `flush`, and leave nothing else behind."""
        assert self._file is not None
        if os.name == "nt":
            self._close()  # Windows renames no open file
        self.path.replace(self.target)
        sync_folder(self.target.parent)
        self._close()
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Facts without a part: a crash between renaming and cleaning up."""
        for path in (self._facts_path, self._facts_new):
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the part and its facts."""
        self._close()
        self.path.unlink(missing_ok=True)
        self.remove_leftovers()

    # --- inside

    def _open(self) -> None:
        # Creates without truncating; appending mode would not let old bytes be compared.
        self.path.touch()
        self._file = self.path.open("r+b", buffering=0)
        try:
            _lock(self._file)
        except OSError as error:
            # Not `_close`: an empty part belongs to whoever has just begun it.
            self._file.close()
            self._file = None
            raise KnownError(
                "busy",
                "This file is being downloaded by another window of Grove. Wait for it, or close "
                "that window.",
            ) from error
        self.size = 0
        self._start_hash()

    def _start_hash(self) -> None:
        self._hash.drop()
        self._hash = _LateHash()

    def _close(self) -> None:
        self._leave_flusher()
        self._hash.drop()
        if self._file is not None:
            empty = self.size == 0
            # A flush that still runs holds the file open, and with it the lock: let go of it here.
            with contextlib.suppress(OSError):
                _unlock(self._file)
            self._file.close()
            self._file = None
            if empty and self.path.exists() and self.path.stat().st_size == 0:
                self.path.unlink(missing_ok=True)
                self.remove_leftovers()

    def _leave_flusher(self) -> None:
        """What the helper thread may still be flushing is of no interest any more."""
        with self._facts_lock:
            self._generation += 1
            self._flusher = None

    def _flush(self, handle: int, size: int, generation: int) -> None:
        """On the helper thread: fsync beside the download, then say how far it reaches."""
        try:
            # A failing disk shows itself at the next write, with a sentence for the user.
            with contextlib.suppress(OSError):
                os.fsync(handle)
                with self._facts_lock:
                    if generation == self._generation:
                        self._write_facts(replace(self.facts, flushed_bytes=size))
        finally:
            os.close(handle)

    def _write_facts(self, facts: Facts) -> None:
        with self._facts_lock:
            self.facts = facts
            # A fixed name for the new file: a kill in between leaves nothing that piles up.
            with self._facts_new.open("w", encoding="utf-8") as file:
                json.dump(asdict(facts), file)
                file.flush()
                os.fsync(file.fileno())
            self._facts_new.replace(self._facts_path)

    def _read_facts(self) -> Facts:
        try:
            data = json.loads(self._facts_path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return Facts()
        if not isinstance(data, dict):
            return Facts()
        kept: dict[str, Any] = {}
        for field in fields(Facts):
            value = data.get(field.name, field.default)
            if type(value) is not type(field.default):
                return Facts()
            kept[field.name] = value
        return Facts(**kept)


def _boot_time() -> int:
    return int(psutil.boot_time())


def _same_boot(boot_time: int) -> bool:
    # Some systems compute the time of the start from a clock that is set now and then.
    return abs(boot_time - _boot_time()) <= 30


def _lock(file: BinaryIO) -> None:
    """An exclusive lock that ends with the process.  Raises OSError when another holds it."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 60)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 60)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
