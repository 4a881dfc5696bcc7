"""Disks that misbehave, as SQLite VFS layers over the real one.

`FaultyDisk` lets one chosen write fail.  `PowerCutDisk` keeps what a disk would hold if the power
went now: everything that was synced, and any part of what was not.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import apsw

_NAMES = count(1)
_SECTOR = 512


class _Disk(apsw.VFS):
    """A VFS under a fresh name, whose files report to it."""

    def __init__(self) -> None:
        self.name = f"test-disk-{next(_NAMES)}"
        super().__init__(self.name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:  # noqa: N802 -- SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.note_open(path or "")
        return _File(self, name, flags, path or "")

    def note_open(self, path: str) -> None:
        """A file is opened."""

    def before_write(self, path: str, data: bytes, offset: int) -> None:
        """Bytes are about to be written."""

    def before_truncate(self, path: str, size: int) -> None:
        """A file is about to be cut."""

    def before_sync(self, path: str) -> None:
        """A file is about to be synced."""

    def after_sync(self, path: str) -> None:
        """A file has been synced."""


class _File(apsw.VFSFile):
    def __init__(
        self, disk: _Disk, name: str | apsw.URIFilename | None, flags: list[int], path: str
    ) -> None:
        self.disk = disk
        self.path = path
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 -- SQLite's name
        self.disk.before_write(self.path, bytes(data), offset)
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 -- SQLite's name
        self.disk.before_truncate(self.path, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 -- SQLite's name
        self.disk.before_sync(self.path)
        super().xSync(flags)
        self.disk.after_sync(self.path)


class FaultyDisk(_Disk):
    """Lets the write call number `fail_at` (from 1) fail once, and counts them all.

    `kinds` are the calls that count: "write", "sync", "truncate".
    """

    def __init__(
        self,
        fail_at: int = 0,
        error: Callable[[], Exception] = lambda: apsw.FullError("disk full"),
        kinds: tuple[str, ...] = ("write", "sync", "truncate"),
    ) -> None:
        super().__init__()
        self.fail_at = fail_at
        self.error = error
        self.kinds = kinds
        self.calls = 0
        self.always = False
        self._lock = threading.Lock()

    def _count(self, kind: str) -> None:
        if kind not in self.kinds:
            return
        with self._lock:
            self.calls += 1
            fails = self.calls == self.fail_at or (self.always and self.calls >= self.fail_at > 0)
        if fails:
            raise self.error()

    def before_write(self, _path: str, _data: bytes, _offset: int) -> None:
        self._count("write")

    def before_truncate(self, _path: str, _size: int) -> None:
        self._count("truncate")

    def before_sync(self, _path: str) -> None:
        self._count("sync")


class PowerCutDisk(_Disk):
    """Remembers what is durable.  At write call number `cut_at` (or by `cut`) the power goes.

    From then on every call fails; `save` writes what a restart would find.  Names in folders count
    as durable at once.
    """

    def __init__(self, cut_at: int = 0, on_cut: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.cut_at = cut_at
        self.on_cut = on_cut
        self.calls = 0
        self.off = False
        self._lock = threading.RLock()
        self._durable: dict[str, bytearray] = {}
        self._waiting: dict[str, list[tuple[int, bytes | None]]] = {}

    def note_open(self, path: str) -> None:
        with self._lock:
            if self.off:
                raise apsw.IOError("no power")
            self._durable.setdefault(path, bytearray())

    def _call(self) -> None:
        if self.off:
            raise apsw.IOError("no power")
        self.calls += 1
        if self.calls == self.cut_at:
            self.cut()
            raise apsw.IOError("no power")

    def cut(self) -> None:
        """The power goes now."""
        with self._lock:
            if not self.off:
                self.off = True
                self.on_cut()

    def before_write(self, path: str, data: bytes, offset: int) -> None:
        with self._lock:
            self._call()
            self._waiting.setdefault(path, []).append((offset, data))

    def before_truncate(self, path: str, size: int) -> None:
        with self._lock:
            self._call()
            self._waiting.setdefault(path, []).append((size, None))

    def before_sync(self, _path: str) -> None:
        with self._lock:
            self._call()

    def after_sync(self, path: str) -> None:
        with self._lock:
            if not self.off:
                for change in self._waiting.pop(path, ()):
                    _apply(self._durable[path], change)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 -- SQLite's name
        with self._lock:
            self._call()
            super().xDelete(filename, syncdir)
            self._durable.pop(filename, None)
            self._waiting.pop(filename, None)

    def save(self, folder: Path, chance: random.Random) -> None:
        """Write the files as a restart would find them: unsynced sectors by chance."""
        keep = chance.choice((0.0, 0.5, 0.9, 1.0))
        for path, image in self._durable.items():
            if path.endswith("-shm") or not path:
                continue
            found = bytearray(image)
            for offset, data in self._waiting.get(path, ()):
                if data is None:
                    if chance.random() < keep:
                        _apply(found, (offset, None))
                    continue
                for start in range(0, len(data), _SECTOR):
                    if chance.random() < keep:
                        _apply(found, (offset + start, data[start : start + _SECTOR]))
            (folder / Path(path).name).write_bytes(found)


def _apply(image: bytearray, change: tuple[int, bytes | None]) -> None:
    offset, data = change
    if data is None:
        del image[offset:]
        return
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data
