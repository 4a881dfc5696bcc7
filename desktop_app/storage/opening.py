"""Opening the database file: lock, key, checks, migrations, and the way back from damage."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import apsw
import filelock

from desktop_app import log
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import backups, schema
from desktop_app.storage.failures import busy_profile, damaged, known, newer

_log = log.logger("storage")

_BUSY_MS = 5_000


class KeyProvider(Protocol):
    """Unlocks an encrypted database.  There is none yet: every library is opened without a key."""

    def unlock(self, db: apsw.Connection) -> None:
        """Called on each connection before anything is read (where `PRAGMA key` belongs)."""


class NoKey:
    """The key provider of a library that is not encrypted."""

    def unlock(self, db: apsw.Connection) -> None:
        """Nothing to do."""


def lock(profile: Profile) -> filelock.FileLock:
    """Take the profile for this process; KnownError("profile-busy") when another has it."""
    held = filelock.FileLock(profile.lock_file, timeout=0, thread_local=False)
    try:
        held.acquire()
    except filelock.Timeout:
        raise busy_profile() from None
    except OSError as error:
        raise known(error) from error
    return held


def connect(
    file: Path, keys: KeyProvider, *, vfs: str | None = None, read_only: bool = False
) -> apsw.Connection:
    """One connection with our settings.  May be used by one thread at a time."""
    if read_only:
        flags = apsw.SQLITE_OPEN_READONLY
    else:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    db = apsw.Connection(str(file), flags=flags, vfs=vfs)
    try:
        db.set_busy_timeout(_BUSY_MS)
        keys.unlock(db)
        if not read_only:
            db.pragma("auto_vacuum", 2)  # incremental; takes effect in a new file only
            db.pragma("journal_mode", "wal")
        db.pragma("synchronous", "full")
        db.pragma("foreign_keys", True)
        db.pragma("secure_delete", True)
        db.pragma("trusted_schema", False)
        db.pragma("cache_size", -16_000)  # 16 MB
    except BaseException:
        db.close(True)
        raise
    return db


def open_writer(profile: Profile, keys: KeyProvider, vfs: str | None) -> apsw.Connection:
    """The one writing connection: created or checked, and brought to the newest version."""
    fresh = not profile.database.exists()
    try:
        profile.create()
        version = 0
        if fresh:
            _create_owner_only(profile.database)
        else:
            version = _check_untouched(profile, keys, vfs)
        db = connect(profile.database, keys, vfs=vfs)
    except (apsw.Error, OSError) as error:
        raise _opening_failed(profile, error) from error
    try:
        if version < 0:
            version = _check(db, profile)
        if version > schema.VERSION:
            raise newer(version)
        if version < schema.VERSION:
            if version:
                backups.write(db, profile, keys, label=f"before-version-{schema.VERSION}")
            schema.migrate(db, version)
            _log.info("database brought from version %d to %d", version, schema.VERSION)
    except (apsw.Error, OSError) as error:
        db.close(True)
        raise _opening_failed(profile, error) from error
    except BaseException:
        db.close(True)
        raise
    return db


def _check_untouched(profile: Profile, keys: KeyProvider, vfs: str | None) -> int:
    """The version of a file that passes its check, without writing a byte to it.

    -1 where that cannot be told before a half-written transaction is rolled back (a crash while the
    library was made).
    """
    try:
        db = connect(profile.database, keys, vfs=vfs, read_only=True)
    except apsw.ReadOnlyError:
        return -1
    try:
        return _check(db, profile)
    except apsw.ReadOnlyError:
        return -1
    finally:
        # The last connection to go wants to fold the log in, which reading does not allow.
        with suppress(apsw.IOError):
            db.close(True)


def open_reader(
    profile: Profile, keys: KeyProvider, vfs: str | None, *, alone: bool
) -> apsw.Connection:
    """A reading connection.  `alone`: there is no writer of ours, the file may be anything."""
    if alone and not profile.database.exists():
        raise _nothing_yet()
    try:
        db = connect(profile.database, keys, vfs=vfs, read_only=True)
    except (apsw.Error, OSError) as error:
        raise _opening_failed(profile, error) from error
    try:
        if alone:
            version = _check(db, profile)
            if version > schema.VERSION:
                raise newer(version)
            if version == 0:
                raise _nothing_yet()
            if version < schema.VERSION:
                raise KnownError(
                    "database-older",
                    "These chats were saved by an older version of Grove. Start Grove once, then "
                    "try again.",
                    detail=f"schema version {version}",
                )
    except apsw.Error as error:
        db.close(True)
        raise _opening_failed(profile, error) from error
    except BaseException:
        db.close(True)
        raise
    return db


def set_aside(profile: Profile) -> Path:
    """Move the database and its side files out of the way, never over anything.

    Returns where the database file is now.  The caller holds the lock.
    """
    number = 1
    while (target := profile.root / f"library.damaged-{number}.db").exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            profile.database.with_name(profile.database.name + suffix).rename(
                target.with_name(target.name + suffix)
            )
    return target


def restore_backup(
    profile: Profile, backup: Path | None = None, *, key_provider: KeyProvider | None = None
) -> Path | None:
    """Put a backup (the newest when None) in the place of a damaged database.

    The damaged file is set aside under another name.  With no backup at all the next start makes
    an empty library.  Returns where the damaged file went, None when there was none.  Raises
    KnownError("profile-busy", "backup-damaged", "disk-full", …); then the original is where it was.
    """
    held = lock(profile)
    try:
        chosen = backup or backups.newest(profile)
        copy = None
        if chosen is not None:
            copy = profile.root / "library.restoring.db"
            backups.copy_durably(chosen, copy)
            _check_backup(copy, chosen.name, key_provider or NoKey())
        aside = set_aside(profile) if profile.database.exists() else None
        if copy is not None:
            copy.replace(profile.database)
            backups.sync_folder(profile.root)
    except OSError as error:
        raise known(error) from error
    else:
        return aside
    finally:
        held.release()


def _check_backup(copy: Path, name: str, keys: KeyProvider) -> None:
    """KnownError("backup-damaged") for what is no whole library; the copy is deleted then."""
    try:
        db = connect(copy, keys, read_only=True)
        try:
            fine = (
                int(db.pragma("application_id")) == schema.APPLICATION_ID
                and _check_tables(db) == "ok"
            )
        finally:
            db.close(True)
    except apsw.Error:
        fine = False
    for suffix in ("-wal", "-shm"):  # a copy of a live database makes these when it is read
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    if not fine:
        copy.unlink(missing_ok=True)
        raise KnownError(
            "backup-damaged",
            f"{name} is damaged or no backup of Grove. Nothing was changed; try an older one.",
        )


def _nothing_yet() -> KnownError:
    return KnownError(
        "library-missing",
        "There are no chats in this profile yet. Start Grove once to create its library.",
    )


def _check(db: apsw.Connection, profile: Profile) -> int:
    """quick_check, then the version; CorruptError and NotADBError for what is no library."""
    version = int(db.pragma("user_version"))
    marker = int(db.pragma("application_id"))
    tables = db.execute("SELECT count(*) FROM sqlite_schema").get
    if tables and marker != schema.APPLICATION_ID:
        raise apsw.NotADBError(f"application id {marker:#x} is not Grove's")
    report = _check_tables(db)
    if report != "ok":
        raise apsw.CorruptError(report)
    if not tables:
        if backups.newest(profile) is not None:
            raise apsw.CorruptError("the file is empty, but there are backups")
        return 0
    if version <= 0:
        raise apsw.CorruptError(f"schema version {version}")
    return version


def _check_tables(db: apsw.Connection) -> str:
    """quick_check of every table but the inner logic of the search index.

    SQLite has FTS5 compare the whole index with its text, which takes ten times as long as all the
    rest (0.9 s against 0.1 s for 35,000 messages); `Library.check` does that too.
    """
    names = db.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
    ).fetchall()
    for (name,) in names:
        quoted = str(name).replace("'", "''")
        for (report,) in db.execute(f"PRAGMA main.quick_check('{quoted}')"):
            if report != "ok":
                return str(report)
    return "ok"


def quick_check(db: apsw.Connection) -> str:
    """ "ok", or the first thing that SQLite found wrong."""
    return str(db.execute("PRAGMA main.quick_check(1)").fetchone()[0])  # type: ignore[index]  # it always gives one row


def _opening_failed(profile: Profile, error: Exception) -> BaseException:
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return damaged(backups.newest(profile), f"{type(error).__name__}: {error}")
    return known(error)


def _create_owner_only(file: Path) -> None:
    """SQLite gives its side files the mode of the database file."""
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
