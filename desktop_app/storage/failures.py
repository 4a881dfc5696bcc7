"""What SQLite and the file system say, in one sentence for the user."""

from __future__ import annotations

import errno
from pathlib import Path

import apsw

from desktop_app.errors import KnownError


def known(error: BaseException) -> BaseException:
    """The `KnownError` for a failure of the world; a bug comes back as it is."""
    detail = f"{type(error).__name__}: {error}"
    match error:
        case KnownError():
            return error
        case apsw.FullError():
            return disk_full(detail)
        case apsw.CorruptError() | apsw.NotADBError():
            return KnownError(
                "database-damaged",
                'Grove\'s database is damaged. Close Grove; "grove restore" brings back the newest '
                "backup, and the damaged file is kept.",
                detail=detail,
            )
        case apsw.BusyError() | apsw.LockedError():
            return KnownError(
                "database-busy",
                "Another program holds Grove's database. Close it (a database viewer, a backup "
                "program) and try again.",
                detail=detail,
            )
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError():
            return _not_writable(detail)
        case apsw.IOError():
            return KnownError(
                "disk-error",
                "The disk reported an error, so this could not be saved. Check the disk, then try "
                "again.",
                detail=detail,
            )
        case OSError(errno=errno.ENOSPC) | OSError(errno=errno.EDQUOT):
            return disk_full(detail)
        case PermissionError() | OSError(errno=errno.EROFS):
            return _not_writable(detail)
        case OSError():
            return KnownError(
                "disk-error",
                "The disk reported an error, so this could not be done. Check the disk, then try "
                "again.",
                detail=f"{type(error).__name__}: {error.strerror}",
            )
        case _:
            return error


def disk_full(detail: str = "") -> KnownError:
    """No space is left."""
    return KnownError(
        "disk-full",
        "The disk is full, so this could not be saved. Free some space and try again.",
        detail=detail,
    )


def damaged(backup: Path | None, detail: str) -> KnownError:
    """The database did not pass its check at the start."""
    if backup is None:
        way_out = (
            'There is no backup yet. "grove restore --empty" sets the file aside and begins an '
            "empty library."
        )
    else:
        way_out = (
            f'The newest backup is {backup.name}; "grove restore" brings it back. '
            "The damaged file will be kept beside it."
        )
    return KnownError("database-damaged", f"Grove's database is damaged. {way_out}", detail=detail)


def newer(version: int) -> KnownError:
    """The database was written by a newer Grove."""
    return KnownError(
        "database-newer",
        "These chats were saved by a newer version of Grove. Install the newest one to open them.",
        detail=f"schema version {version}",
    )


def busy_profile() -> KnownError:
    """Another Grove has the profile."""
    return KnownError(
        "profile-busy",
        "Grove is already running with these chats. Use the open window, or close it first.",
    )


def closed() -> KnownError:
    """A late call."""
    return KnownError("library-closed", "Grove is closing, so this was not done.")


def chat_gone() -> KnownError:
    """A step in a chat that was erased."""
    return KnownError(
        "chat-gone", "This chat was erased with the trash, so nothing can be added to it."
    )


def read_only() -> KnownError:
    """A write in a library that was opened for reading."""
    return KnownError("read-only", "The chats are open for reading only, so nothing was changed.")


def _not_writable(detail: str) -> KnownError:
    return KnownError(
        "library-not-writable",
        "Grove may not write to its folder. Check the folder's permissions, or choose another "
        "folder with --profile.",
        detail=detail,
    )
