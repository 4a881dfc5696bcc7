"""Attachments: files named by the SHA-256 of their bytes, readable by their owner only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import apsw

from desktop_app.conversation.node import now_ms
from desktop_app.errors import KnownError
from desktop_app.paths import Profile
from desktop_app.storage import backups


def path_of(profile: Profile, digest: str) -> Path:
    """Where the bytes of a blob lie."""
    return profile.blobs / digest[:2] / digest


def digest_of(data: bytes) -> str:
    """SHA-256 in hex."""
    import hashlib  # here: loading OpenSSL is no part of a start

    return hashlib.sha256(data).hexdigest()


def put(profile: Profile, data: bytes) -> str:
    """Write bytes durably and return their SHA-256 in hex.  Raises OSError."""
    digest = digest_of(data)
    target = path_of(profile, digest)
    if target.exists() and target.stat().st_size == len(data):
        return digest
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    half = target.with_name(f"{digest}.{os.urandom(16).hex()}.part")
    try:
        descriptor = os.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as writing:
            writing.write(data)
            writing.flush()
            os.fsync(writing.fileno())
        half.replace(target)
    except OSError:
        half.unlink(missing_ok=True)
        raise
    backups.sync_folder(target.parent)
    return digest


def get(profile: Profile, digest: str) -> bytes:
    """The bytes of a blob.  KnownError("attachment-missing") when they are gone or changed."""
    try:
        data = path_of(profile, digest).read_bytes()
    except OSError as error:
        raise _missing(type(error).__name__) from error
    if digest_of(data) != digest:
        raise _missing("the bytes have changed")
    return data


def note(db: apsw.Connection, digest: str, size_bytes: int) -> None:
    """Register a blob, in the caller's transaction."""
    db.execute(
        "INSERT INTO blob(hash, size_bytes, created_at) VALUES(?,?,?) ON CONFLICT DO NOTHING",
        (digest, size_bytes, now_ms()),
    )


def drop_unused(db: apsw.Connection) -> list[str]:
    """Forget blobs that no part, revision or undo entry names; returns their hashes."""
    db.execute(
        "DELETE FROM blob WHERE NOT EXISTS (SELECT 1 FROM part WHERE blob_hash = blob.hash)"
        " AND NOT EXISTS (SELECT 1 FROM revision WHERE instr(parts, blob.hash))"
        " AND NOT EXISTS (SELECT 1 FROM undo_entry WHERE instr(edits, blob.hash))"
        " AND created_at < ?",
        # One that was just added may be on its way into a message.
        (now_ms() - 3_600_000,),
    )
    return [row[0] for row in db.execute("SELECT hash FROM blob")]


def delete_all_but(profile: Profile, kept: Iterable[str]) -> None:
    """Delete the files of forgotten blobs, and halves that a crash left."""
    wanted = set(kept)
    with suppress(OSError):
        for folder in profile.blobs.iterdir():
            for file in folder.iterdir() if folder.is_dir() else ():
                if file.name not in wanted:
                    with suppress(OSError):
                        file.unlink()


def _missing(detail: str) -> KnownError:
    return KnownError(
        "attachment-missing",
        "The file of an attachment is missing or damaged. The rest of the chat is fine.",
        detail=detail,
    )
