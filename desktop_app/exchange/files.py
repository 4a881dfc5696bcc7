"""Files of the exchange: read lines or one document, plain or gzipped; write so that a crash leaves
the old file or the new one whole.  Any thread."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from desktop_app.errors import KnownError

Json = Any

_GZIP_MAGIC: Final = b"\x1f\x8b"
MAX_BYTES: Final = 4 << 30
"""More text than this is refused rather than read into memory."""


def read_text(path: Path) -> str:
    """The file's text, unpacked if it is gzipped; KnownError says why it cannot be read."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP_MAGIC
        with gzip.open(path) if packed else path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise KnownError(
            "file-missing", f"There is no file {path}. Check the name and try again."
        ) from None
    except IsADirectoryError:
        raise KnownError("file-missing", f"{path} is a folder. Choose a file to import.") from None
    except (OSError, EOFError) as error:
        raise KnownError(
            "file-unreadable",
            f"{path.name} could not be read. It may be damaged or not yours to read.",
            detail=str(error),
        ) from error
    if len(data) > MAX_BYTES:
        raise KnownError("file-too-big", f"{path.name} is too big to import in one piece.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KnownError(
            "import-format",
            f"{path.name} is no text file in UTF-8. Nothing was imported.",
            detail=str(error),
        ) from None


def parse_json(text: str, name: str) -> Json:
    """One JSON document; KnownError("import-format") where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KnownError(
            "import-format",
            f"{name} is no complete JSON file. Nothing was imported.",
            detail=_where(error),
        ) from None


def parse_lines(text: str, name: str) -> Iterator[tuple[int, Json]]:
    """(line number, parsed object) of each line that is not blank."""
    # Not splitlines(): that cuts at U+2028 and U+0085, which may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise KnownError(
                "import-format",
                f"Line {number} of {name} is no JSON. Nothing was imported.",
                detail=_where(error),
            ) from None


def _where(error: Exception) -> str:
    # The position only: the message of some errors quotes the text.
    position = getattr(error, "pos", None)
    return f"{type(error).__name__} at character {position}"


def write_atomically(path: Path, chunks: Iterable[str]) -> int:
    """Write the chunks to `path` and return the bytes written.

    The new file replaces the old one only when it is whole and on disk.  A name that ends in
    ``.gz`` is compressed.  KnownError("disk-full" | "file-unwritable") leaves the old file alone.
    """
    temporary: Path | None = None
    # A lone surrogate has no UTF-8; "backslashreplace" writes exactly JSON's escape for it.
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed:
                    for chunk in chunks:
                        packed.write(chunk.encode("utf-8", "backslashreplace"))
            else:
                for chunk in chunks:
                    raw.write(chunk.encode("utf-8", "backslashreplace"))
            raw.flush()
            os.fsync(raw.fileno())
            size_bytes = raw.tell()
        temporary.replace(path)
    except OSError as error:
        full = error.errno in (28, 122)  # ENOSPC, EDQUOT
        raise KnownError(
            "disk-full" if full else "file-unwritable",
            f"{path.name} could not be written: the disk is full. Free some space and try again."
            if full
            else f"{path.name} could not be written there. Choose another folder.",
            detail=str(error),
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    return size_bytes
