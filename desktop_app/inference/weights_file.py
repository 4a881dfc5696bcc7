"""What the engine child checks about a weights file before llama.cpp sees it.

The deep check of a header (bounds, types, extents) belongs to `weights.gguf` and is run by the app.
This is the part without which the child could not even say in a sentence what is wrong.
"""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path
from typing import Final

from desktop_app.errors import KnownError

_SHARD: Final = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
_MIB: Final = 1024 * 1024
_BLOCK_BYTES: Final = 64 * 1024
_BLOCKS: Final = 62


def shards(path: Path) -> tuple[Path, ...]:
    """All files of the weights, the first one first; KnownError when one of them is missing.

    A file named "…-00002-of-00003.gguf" belongs to a set of three, of which any may be chosen.
    """
    match = _SHARD.match(path.name)
    files: tuple[Path, ...] = (path,)
    if match:
        count = int(match["count"])
        files = tuple(
            path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf")
            for number in range(1, count + 1)
        )
    for file in files:
        try:
            if file.is_file():
                continue
        except OSError as error:
            raise _unreadable(file, error) from None
        if len(files) > 1 and file != path:
            raise KnownError(
                "weights-part-missing",
                f"These weights have {len(files)} parts, and {file.name} is not there. "
                "Download the missing part into the same folder.",
            )
        raise KnownError(
            "weights-missing",
            f"{file.name} is not there any more. Choose the weights again.",
            detail=str(file),
        )
    return files


def check(path: Path) -> tuple[Path, ...]:
    """The shards of weights that look like a GGUF file of a version that can be read."""
    files = shards(path)
    for file in files:
        try:
            with file.open("rb") as stream:
                head = stream.read(24)
        except OSError as error:
            raise _unreadable(file, error) from None
        if head[:4] != b"GGUF":
            raise KnownError(
                "weights-no-gguf",
                f"{file.name} is not a GGUF file. Choose weights in the GGUF format.",
            )
        if len(head) < 24:
            raise KnownError(
                "weights-truncated",
                f"{file.name} is cut off after its first bytes. Download it again.",
            )
        (version,) = struct.unpack_from("<I", head, 4)
        if version == 1:
            raise KnownError(
                "weights-version",
                f"{file.name} is in the first version of the GGUF format, which cannot be read "
                "any more. Download a newer file of these weights.",
            )
        if version & 0xFFFF == 0:
            raise KnownError(
                "weights-byte-order",
                f"{file.name} was made for machines with the other byte order. "
                "Download the usual file of these weights.",
            )
    return files


def _unreadable(file: Path, error: OSError) -> KnownError:
    return KnownError(
        "weights-unreadable",
        f"{file.name} cannot be read: {error.strerror or 'input or output error'}. "
        "Check the disk and the permissions.",
        detail=str(error),
    )


def size_bytes(files: tuple[Path, ...]) -> int:
    """The size of all shards together."""
    return sum(file.stat().st_size for file in files)


def fingerprint(files: tuple[Path, ...]) -> str:
    """A cheap identity of the weights: "sha256-sampled:" and 64 hexadecimal digits.

    sha256 over, for each shard in order: its size (8 bytes, little endian), its first MiB (header,
    beginning of the vocabulary), its last MiB, and 62 blocks of 64 KiB at even distances between.
    Two files that differ only between these blocks look equal: it tells files apart, it does not
    prove that a download is whole.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(struct.pack("<Q", size))
        with file.open("rb") as stream:
            digest.update(stream.read(_MIB))
            for index in range(_BLOCKS):
                stream.seek(_MIB + (size - _MIB) * index // _BLOCKS if size > _MIB else size)
                digest.update(stream.read(_BLOCK_BYTES))
            stream.seek(max(0, size - _MIB))
            digest.update(stream.read(_MIB))
    return "sha256-sampled:" + digest.hexdigest()
