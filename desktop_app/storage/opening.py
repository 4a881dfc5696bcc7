"""Opening the database file: lock, key, checks, migrations, and the way back from damage."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

import apsw

from desktop_app import log
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import backups, mending, schema
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


def lock(profile: Profile) -> apsw.Connection:
    """Take the profile for this process; KnownError("profile-busy") when another has it.

    The lock is SQLite's own, on an empty database beside the library; it ends with the process or
    with `close` of what is returned.
    """
    try:
        held = apsw.Connection(str(profile.lock_file))
        try:
            # Not EXCLUSIVE: of two that start at once, both could be refused.
            held.execute("BEGIN IMMEDIATE")
        except BaseException:
            held.close(True)
            raise
    except apsw.BusyError:
        raise busy_profile() from None
    except (apsw.Error, OSError) as error:
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
    try:
        profile.create()
        if _ready(profile).exists():
            _swap(profile)
        fresh = not profile.database.exists()
        version = 0
        if fresh:
            _create_owner_only(profile.database)
        else:
            try:
                version = _check_untouched(profile, keys, vfs)
            except _IndexDamaged:
                _mend(profile, keys)
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


class _IndexDamaged(apsw.CorruptError):
    """Only the search index is damaged, and the schema is the newest."""


def _mend(profile: Profile, keys: KeyProvider) -> None:
    """Put a copy with a new search index in the place of the database, which is set aside."""
    copy = profile.root / "library.mending.db"
    for file in mending.leftovers(copy):
        file.unlink(missing_ok=True)
    try:
        _create_owner_only(copy)
        with (
            closing(connect(profile.database, keys, read_only=True)) as damaged_db,
            closing(connect(copy, keys)) as target,
        ):
            mending.copy_without_index(damaged_db, target)
        copy.replace(_ready(profile))
        _swap(profile)
    finally:
        for file in mending.leftovers(copy):
            file.unlink(missing_ok=True)
    _log.info("the search index was damaged and has been made anew")


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
            version = _check(db, profile, tolerant=True)
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


def _ready(profile: Profile) -> Path:
    """A whole, checked database that is to take the library's place, whatever happens."""
    return profile.root / "library.ready.db"


def _swap(profile: Profile) -> Path | None:
    """Set the database aside and put the ready one in its place.

    A crash on the way is made good by the next start: a ready file is always the one to go on with.
    """
    backups.sync_folder(profile.root)
    aside = set_aside(profile) if profile.database.exists() else None
    _ready(profile).replace(profile.database)
    backups.sync_folder(profile.root)
    return aside


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
        if copy is None:
            aside = set_aside(profile) if profile.database.exists() else None
        else:
            copy.replace(_ready(profile))
            aside = _swap(profile)
    except OSError as error:
        raise known(error) from error
    else:
        return aside
    finally:
        held.close(True)


def _check_backup(copy: Path, name: str, keys: KeyProvider) -> None:
    """KnownError("backup-damaged") for what is no whole library; the copy is deleted then."""
    try:
        db = connect(copy, keys, read_only=True)
        try:
            fine = int(db.pragma("application_id")) == schema.APPLICATION_ID and _check_tables(
                db
            ) == ("ok", "ok")
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


def _check(db: apsw.Connection, profile: Profile, *, tolerant: bool = False) -> int:
    """quick_check, then the version; CorruptError and NotADBError for what is no library.

    `tolerant` overlooks damage of the search index.
    """
    version = int(db.pragma("user_version"))
    marker = int(db.pragma("application_id"))
    tables = db.execute("SELECT count(*) FROM sqlite_schema").get
    if tables and marker != schema.APPLICATION_ID:
        raise apsw.NotADBError(f"application id {marker:#x} is not Grove's")
    report, index_report = _check_tables(db)
    if report != "ok":
        raise apsw.CorruptError(report)
    if index_report != "ok" and not tolerant:
        if version != schema.VERSION:
            raise apsw.CorruptError(index_report)
        raise _IndexDamaged(index_report)
    if not tables:
        if backups.newest(profile) is not None:
            raise apsw.CorruptError("the file is empty, but there are backups")
        return 0
    if version <= 0:
        raise apsw.CorruptError(f"schema version {version}")
    return version


def _check_tables(db: apsw.Connection) -> tuple[str, str]:
    """quick_check of our tables, and of those under the search index; "ok" or what is wrong.

    The index's inner logic is left out: SQLite has FTS5 compare it with all the text, which takes
    ten times as long as the rest (0.9 s against 0.1 s for 35,000 messages).  `Library.check` does
    that too.
    """
    found = {False: "ok", True: "ok"}
    for (name,) in db.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
    ).fetchall():
        of_the_index = mending.is_of_the_index(str(name))
        quoted = str(name).replace("'", "''")
        try:
            for (report,) in db.execute(f"PRAGMA main.quick_check('{quoted}')"):
                if report != "ok":
                    found[of_the_index] = str(report)
        except apsw.CorruptError as error:
            found[of_the_index] = str(error)
    return found[False], found[True]


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
