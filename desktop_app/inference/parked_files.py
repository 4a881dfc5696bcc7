"""The files of parked branches: headers, the index of chats, the key, erasure.

A folder holds one ".blk" file per block of one identity, and "chats.json": which chat needs how
many tokens of which blocks.  See `parking` for what the blocks are.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAGIC: Final = b"GRVBLK1\n"
NAME_BYTES: Final = 32
ROOT: Final = bytes(NAME_BYTES)
_DISK_SHARE: Final = 0.1
Header = tuple[bytes, int, list[int], bool]
"""What a file's header says: parent's name, offset, tokens, whether it is a checkpoint."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block hangs: its parent's name, the offset there; `depth` grows downwards."""

    parent: bytes
    offset: int
    depth: int


def unneeded(
    places: Mapping[bytes, Place], lengths: Mapping[bytes, int], needs: Mapping[bytes, int]
) -> set[bytes]:
    """The blocks that hold anything nobody needs, and all that hang on these.

    `needs`: how many tokens of a block some conversation needs.
    """
    extent = dict(needs)
    deepest_first = sorted(places, key=lambda name: places[name].depth, reverse=True)
    for name in deepest_first:
        place = places[name]
        if extent.get(name, 0) and place.parent in places:
            extent[place.parent] = max(extent.get(place.parent, 0), place.offset)
    gone: set[bytes] = set()
    for name in reversed(deepest_first):
        if extent.get(name, 0) < lengths[name] or places[name].parent in gone:
            gone.add(name)
    return gone


def left_of(
    name: bytes, places: Mapping[bytes, Place], gone: set[bytes]
) -> tuple[bytes, int] | None:
    """What stays of the branch that ended in a block that goes: (block, count of its tokens)."""
    while True:
        place = places[name]
        if place.parent not in places:
            return None
        if place.parent not in gone:
            return place.parent, place.offset
        name = place.parent


def forget_on_disk(folder: Path, chats: Iterable[str], *, but: Path | None = None) -> None:
    """Erase the text of these conversations, for all weights except those kept in `but`.

    For places that no running engine uses.
    """
    gone = set(chats)
    for place in all_places(folder):
        index = read_index(place)
        if place == but or not gone & index.keys():
            continue
        kept = {chat: names for chat, names in index.items() if chat not in gone}
        needs: dict[bytes, int] = {}
        for names in kept.values():
            for name, count in names.items():
                needs[name] = max(needs.get(name, 0), count)
        headers = {name_of(file): read_header(file) for file in place.glob("*.blk")}
        read = {name: header for name, header in headers.items() if header is not None}
        places = {name: Place(h[0], h[1], _depth(name, read)) for name, h in read.items()}
        drop = unneeded(places, {name: len(h[2]) for name, h in read.items()}, needs)
        for file in place.glob("*.blk"):
            if name_of(file) not in read or name_of(file) in drop:
                unlink(file)
        left: dict[str, dict[str, int]] = {}
        for chat, names in kept.items():
            left[chat] = {}
            for name, count in names.items():
                where = left_of(name, places, drop) if name in drop else (name, count)
                if where is not None:
                    left[chat][where[0].hex()] = max(where[1], left[chat].get(where[0].hex(), 0))
        with contextlib.suppress(OSError):
            write_private(place / "chats.json", json.dumps(left).encode())


def _depth(name: bytes, headers: Mapping[bytes, Header]) -> int:
    """How many blocks stand above; what hangs in a ring has no place and comes out deepest."""
    depth = 0
    while name in headers and depth <= len(headers):
        name, depth = headers[name][0], depth + 1
    return depth


# --- files -------------------------------------------------------------------------------------


def header_bytes(parent: bytes, offset: int, tokens: Sequence[int], *, whole: bool) -> bytes:
    """A block's header as bytes."""
    ids = array("i", tokens)
    return parent + struct.pack("<IIB", offset, len(ids), whole) + ids.tobytes()


def read_header(file: Path) -> Header | None:
    """(parent's name, offset, tokens, whole) of a block's file; None when it is none."""
    fixed = NAME_BYTES + 9
    try:
        with file.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                return None
            (size,) = struct.unpack("<I", stream.read(4))
            if not fixed <= size <= fixed + 4 * (1 << 22):
                return None
            header = stream.read(size)
    except (OSError, struct.error):
        return None
    if len(header) != size:
        return None
    offset, count, whole = struct.unpack_from("<IIB", header, NAME_BYTES)
    if size != fixed + 4 * count or count == 0 or whole > 1:
        return None
    tokens = array("i")
    tokens.frombytes(header[fixed:])
    return header[:NAME_BYTES], offset, tokens.tolist(), bool(whole)


def offset_of(read: Header) -> int:
    """The offset as it goes into the block's name."""
    return 2**32 - 1 if read[3] else read[1]


def name_of(file: Path) -> bytes:
    """The block's name that the file's own name says, empty when it says none."""
    try:
        return bytes.fromhex(file.stem)
    except ValueError:
        return b""


def read_index(place: Path) -> dict[str, dict[bytes, int]]:
    """Which chat needs how many tokens of which blocks; empty when it is damaged."""
    try:
        needs = json.loads((place / "chats.json").read_bytes())
        return {
            str(chat): {bytes.fromhex(name): int(count) for name, count in names.items()}
            for chat, names in needs.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # without it nobody can say who needs what: everything is dropped


def private_key(folder: Path) -> bytes:
    """The key of names and MACs, made at first use, readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / "branches.key"
    with contextlib.suppress(FileNotFoundError):
        key = file.read_bytes()
        if len(key) == 32:
            return key
    key = secrets.token_bytes(32)
    write_private(file, key)
    return key


def write_private(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, for its owner only."""
    part = file.with_name(file.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
    part.replace(file)


def size_of(file: Path) -> int:
    """Its size in bytes, 0 when it is gone."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def modified(file: Path) -> float:
    """When it was last used, 0 when it is gone."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def unlink(file: Path) -> None:
    """Remove it, if it is there."""
    with contextlib.suppress(OSError):
        file.unlink()


def all_places(folder: Path) -> Iterator[Path]:
    """The folders of all identities."""
    with contextlib.suppress(OSError):
        yield from [place for place in (folder / "branches").iterdir() if place.is_dir()]


def disk_cap(folder: Path) -> int:
    """What parked blocks may take of the free disk, in bytes."""
    return int(shutil.disk_usage(folder).free * _DISK_SHARE)


def drop_others(place: Path, cap: int) -> None:
    """Keep other weights' blocks within the cap too: the longest unused weights go first."""
    others = sorted((p for p in place.parent.iterdir() if p != place), key=modified)
    sizes = {p: sum(size_of(file) for file in p.iterdir()) if p.is_dir() else 0 for p in others}
    total = sum(sizes.values())
    for other in others:
        if total <= cap:
            return
        total -= sizes[other]
        shutil.rmtree(other, ignore_errors=True)
