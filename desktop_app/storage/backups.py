"""Backups of the database: written whole, then renamed into place; the newest ones are kept."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from desktop_app.errors import KnownError
from desktop_app.paths import Profile

if TYPE_CHECKING:
    from desktop_app.storage.opening import KeyProvider

KEEP_NEWEST: Final = 7
KEEP_WEEKS: Final = 8
EVERY_S: Final = 20 * 3600
_PAGES: Final = 512


def newest(profile: Profile) -> Path | None:
    """The newest backup, None when there is none."""
    found = every(profile)
    return found[0] if found else None


def every(profile: Profile) -> list[Path]:
    """All backups, the newest first (their names begin with the time, in UTC)."""
    with suppress(OSError):
        return sorted(profile.backups.glob("library-*.db"), reverse=True)
    return []


def is_due(profile: Profile) -> bool:
    """Whether the newest backup is older than a day's work."""
    last = newest(profile)
    try:
        return last is None or time.time() - last.stat().st_mtime > EVERY_S
    except OSError:
        return True


def write(
    source: apsw.Connection,
    profile: Profile,
    keys: KeyProvider,
    *,
    folder: Path | None = None,
    label: str = "",
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Copy the database of `source` into a new file of `folder` and return it.

    Raises apsw.Error or OSError (the half-written file is gone then), and KnownError("cancelled").
    """
    folder = folder or profile.backups
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    name = f"library-{stamp}{'-' + label if label else ''}.db"
    half = folder / (name + ".part")
    os.close(os.open(half, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        target = apsw.Connection(str(half))
        # One snapshot: without it every write would start the copy anew.
        source.execute("BEGIN; SELECT count(*) FROM sqlite_schema")
        try:
            keys.unlock(target)
            with target.backup("main", source, "main") as copying:
                while not copying.done:
                    if cancelled():
                        raise KnownError("cancelled", "The backup was stopped.")
                    copying.step(_PAGES)
            # One file, no side files: a backup is to be carried around.
            target.pragma("journal_mode", "delete")
            report = target.execute("PRAGMA quick_check(1)").get
            if report != "ok":
                raise apsw.CorruptError(str(report))
        finally:
            source.execute("COMMIT")
            target.close(True)
        _sync_file(half)
        half.replace(folder / name)
        sync_folder(folder)
    except BaseException:
        for leftover in folder.glob(half.name + "*"):
            leftover.unlink(missing_ok=True)
        raise
    return folder / name


def rotate(profile: Profile) -> None:
    """Drop old backups: the newest few stay, and beyond them one a week for two months."""
    weeks: set[str] = set()
    for file in every(profile)[KEEP_NEWEST:]:
        try:
            week = datetime.strptime(file.name[8:16], "%Y%m%d").replace(tzinfo=UTC)
        except ValueError:
            continue  # not named by us: not ours to delete
        key = week.strftime("%G-%V")
        if key in weeks or len(weeks) >= KEEP_WEEKS:
            file.unlink(missing_ok=True)
        weeks.add(key)


def keep_only(profile: Profile, kept: Path) -> None:
    """Drop every backup but one (the others still hold what was erased)."""
    for file in every(profile):
        if file != kept:
            file.unlink(missing_ok=True)


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file, owner-only, and see it to the disk."""
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with source.open("rb") as reading, os.fdopen(descriptor, "wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable, where the system has a way to."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())
