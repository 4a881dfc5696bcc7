"""Small JSON files of the profile: read forgivingly, written atomically."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import psutil

from desktop_app.errors import KnownError


def load_json(path: Path, default: Any) -> Any:
    """The file's content, or `default` when it is missing.

    A file that is not JSON is set aside as ``NAME.damaged`` so that nothing is lost by the next
    write, and `default` is returned.
    """
    _clear_leftovers(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except (ValueError, RecursionError):
        with contextlib.suppress(OSError):
            path.replace(path.with_name(path.name + ".damaged"))
        return default
    except OSError as error:
        raise KnownError(
            "profile-unreadable",
            f"The file {path.name} in Grove's folder cannot be read. Check its permissions.",
            detail=str(error),
        ) from error


def _clear_leftovers(path: Path) -> None:
    """Remove what a process that was killed in the middle of a write left."""
    for leftover in path.parent.glob(f".{path.name}.*-*.new"):
        owner = leftover.name.removeprefix(f".{path.name}.").partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            with contextlib.suppress(OSError):
                leftover.unlink()


def save_json(path: Path, data: Any) -> None:
    """Write `data` so that a crash leaves either the old or the new file, never a part."""
    text = json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True)
    write_atomically(path, text.encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write, flush to disk and rename.  Raises KnownError ``disk-full`` or ``disk-error``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise disk_error(error, path) from error


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut (where the system lets folders be synced)."""
    if os.name == "nt":
        return  # Windows cannot open folders; NTFS journals renames
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_empty_folders(folder: Path, top: Path) -> None:
    """Remove `folder` and those above it, below `top`, as long as they are empty."""
    while folder != top and folder.is_relative_to(top):
        try:
            folder.rmdir()
        except OSError:
            return  # not empty, or gone already
        folder = folder.parent


def disk_error(error: OSError, path: Path) -> KnownError:
    """What a failed write means to the user."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return KnownError(
            "disk-full",
            "The disk is full. Free some space and try again; nothing that was there is lost.",
            detail=f"{path}: {error}",
        )
    return KnownError(
        "disk-error",
        f"The folder {path.parent.name} cannot be written to. Check the drive and its permissions.",
        detail=f"{path}: {error}",
    )
