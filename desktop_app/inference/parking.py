"""Parked branches: what was read once, kept as blocks in memory and on disk.

A `Block` is the state of up to `BLOCK_TOKENS` tokens at their positions, as llama.cpp saved it.
Blocks form a trie: a block hangs at an offset of its parent (0 … all of the parent's tokens), so
two branches that part inside a block share it, and nothing is kept twice.  A `Checkpoint` is the
whole state of a sequence after its tokens, for weights whose state cannot be cut.

A block's name is a keyed hash over who computed it (`identity`: weights, engine, types …), its
parent's name, the offset and its tokens; its content is checked by a MAC with the same key.  So a
damaged, exchanged or foreign file is never used: it is removed, and its tokens are read again.
What is kept here is chat text in another form: the files are for their owner only, are no part of
backups, and go with the last chat that needs them (`forget`).  A cipher would go into `_seal` and
`_open`.

No Qt, no llama.cpp; not for several threads at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BLOCK_TOKENS: Final = 128
_MAGIC: Final = b"GRVBLK1\n"
_NAME_BYTES: Final = 32
_ROOT: Final = bytes(_NAME_BYTES)
_DISK_SHARE: Final = 0.1
_MAX_CHECKPOINTS: Final = 64
_Header = tuple[bytes, int, list[int], bool]
"""What a file's header says: parent's name, offset, tokens, whether it is a checkpoint."""


@dataclass(eq=False, slots=True)
class Block:
    """A node of the trie; `data` is None while it is on disk only."""

    name: bytes
    parent: Block | None
    offset: int
    start: int
    tokens: list[int]
    whole: bool = False
    data: bytes | None = None
    on_disk: bool = False
    size_bytes: int = 0
    used: int = 0
    children: dict[tuple[int, int], Block] = field(default_factory=dict)
    chats: dict[str, int] = field(default_factory=dict)  # how many of its tokens each chat needs

    @property
    def end(self) -> int:
        """The position behind its last token."""
        return self.start + len(self.tokens)


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    size = min(len(left), len(right))
    for index in range(size):
        if left[index] != right[index]:
            return index
    return size


class Parking:
    """All parked blocks of one identity."""

    def __init__(
        self,
        identity: str,
        *,
        memory_bytes: int,
        folder: Path | None = None,
        disk_bytes: int | None = None,
    ) -> None:
        """`memory_bytes` and `disk_bytes` are the caps (None: a tenth of the free disk).

        `folder` None keeps everything in memory only.  What lies in the folder is taken up; what
        cannot be trusted there is removed.
        """
        self._identity = hashlib.sha256(identity.encode()).digest()
        self._memory_cap = memory_bytes
        self._root = Block(_ROOT, None, 0, 0, [])
        self._blocks: dict[bytes, Block] = {}
        self._checkpoints: list[Block] = []
        self._clock = 0
        self._unwritten: list[Block] = []
        self._index_stale = False
        self._folder: Path | None = None
        self._key = secrets.token_bytes(32)
        self._disk_cap = 0
        self.memory_used = self.disk_used = 0
        if folder is not None:
            with contextlib.suppress(OSError):  # no disk cache is no reason not to write
                self._key = _key(folder)
                self._folder = folder / "branches" / self._identity.hex()[:32]
                self._folder.parent.mkdir(exist_ok=True, mode=0o700)
                self._folder.mkdir(exist_ok=True, mode=0o700)
                os.utime(self._folder)
                self._disk_cap = _disk_cap(self._folder) if disk_bytes is None else disk_bytes
                _drop_others(self._folder, self._disk_cap)
                self._take_up()

    # --- looking up ----------------------------------------------------------------------------

    def match(self, tokens: Sequence[int]) -> list[tuple[Block, int]]:
        """The parked beginning of `tokens`: blocks in order, with how many tokens of each."""
        found: list[tuple[Block, int]] = []
        node, at, position = self._root, 0, 0
        while position < len(tokens):
            child = node.children.get((at, tokens[position]))
            if child is None:
                break
            shared = _shared(child.tokens, tokens[position : position + len(child.tokens)])
            found.append((child, shared))
            node, at, position = child, shared, position + shared
        return found

    def checkpoint(self, tokens: Sequence[int]) -> Block | None:
        """The checkpoint of the longest beginning of `tokens`."""
        fitting = [
            block
            for block in self._checkpoints
            if len(block.tokens) <= len(tokens)
            and block.tokens[-1] == tokens[len(block.tokens) - 1]
            and _shared(block.tokens, tokens) == len(block.tokens)
        ]
        return max(fitting, key=lambda block: len(block.tokens), default=None)

    def data(self, block: Block) -> bytes | None:
        """A block's state; None (and the block is gone) when its file is damaged."""
        self._touch(block)
        if block.data is not None:
            return block.data
        try:
            content = self._file(block).read_bytes()
        except OSError:
            content = b""
        data = self._open(block, content)
        if data is None:
            self._remove(block)
            return None
        block.data = data
        self.memory_used += len(data)
        with contextlib.suppress(OSError):
            os.utime(self._file(block))
        self._keep_memory_cap(but=block)
        return data

    # --- keeping -------------------------------------------------------------------------------

    def add(
        self, parent: Block | None, offset: int, tokens: Sequence[int], data: bytes, chat: str
    ) -> Block:
        """Keep the state of `tokens`, which follow `offset` tokens of `parent` (None: at 0)."""
        node = parent or self._root
        block = Block(
            name=self._name(node.name, offset, tokens),
            parent=node,
            offset=offset,
            start=node.start + offset,
            tokens=list(tokens),
        )
        node.children[offset, tokens[0]] = block
        self._keep(block, data, chat)
        return block

    def add_checkpoint(self, tokens: Sequence[int], data: bytes, chat: str) -> None:
        """Keep the whole state of a sequence after `tokens`."""
        name = self._name(_ROOT, 2**32 - 1, tokens)
        if name in self._blocks:
            self._touch(self._blocks[name])
            self.note(self._blocks[name], chat, len(tokens))
            return
        block = Block(name, self._root, 0, 0, list(tokens), whole=True)
        self._checkpoints.append(block)
        self._keep(block, data, chat)
        while len(self._checkpoints) > _MAX_CHECKPOINTS:
            self._remove(min(self._checkpoints, key=lambda b: b.used))

    def can_grow(self, block: Block) -> bool:
        """Whether a longer block may take this one's place: unfinished, and nothing hangs on it."""
        return not block.children and len(block.tokens) < BLOCK_TOKENS

    def grow(self, block: Block, tokens: Sequence[int], data: bytes, chat: str) -> Block:
        """Put a longer block, which begins with this one's tokens, in its place."""
        parent, chats = block.parent, block.chats
        self._remove(block)
        grown = self.add(parent, block.offset, tokens, data, chat)
        for other, count in chats.items():
            self.note(grown, other, count)
        return grown

    def note(self, block: Block, chat: str, count: int) -> None:
        """This conversation needs `count` tokens of the block (and so all before it)."""
        if count > block.chats.get(chat, 0):
            block.chats[chat] = count
            self._index_stale = True
            if chat and not block.on_disk and block not in self._unwritten:
                self._unwritten.append(block)

    def forget(self, chats: Iterable[str]) -> None:
        """Erase the text of these conversations, from memory and from disk.

        A block that other conversations share in part only goes as well, with what hangs on it:
        its end is text of a conversation that is gone.
        """
        gone = set(chats)
        for block in self._blocks.values():
            for chat in gone & block.chats.keys():
                del block.chats[chat]
                self._index_stale = True
        self._drop_unneeded()
        self.flush_index()
        if self._folder is not None:  # what other weights keep of them goes too
            forget_on_disk(self._folder.parent.parent, gone, but=self._folder)

    # --- the disk ------------------------------------------------------------------------------

    def write_one(self) -> bool:
        """Write one block that is in memory only; False when there is nothing to write.

        The parent comes first, so that whatever is on disk hangs together.
        """
        if self._folder is None:
            self._unwritten.clear()
        while self._unwritten:
            block = first = self._unwritten[0]
            while (above := block.parent) not in (None, self._root) and not above.on_disk:
                block = above
            if block in self._unwritten:
                self._unwritten.remove(block)
            if block.data is not None and not block.on_disk:
                self._write(block)
                return True
            if first in self._unwritten:
                self._unwritten.remove(first)  # it hangs on what can no longer be written
        if self._index_stale:
            self.flush_index()
            return True
        return False

    def flush_index(self) -> None:
        """Write down which conversation needs which blocks."""
        self._index_stale = False
        if self._folder is None:
            return
        needs: dict[str, dict[str, int]] = {}
        for block in self._blocks.values():
            for chat, count in block.chats.items():
                if chat and block.on_disk:
                    needs.setdefault(chat, {})[block.name.hex()] = count
        with contextlib.suppress(OSError):
            _write_private(self._folder / "chats.json", json.dumps(needs).encode())

    def _write(self, block: Block) -> None:
        assert block.data is not None
        content = self._seal(block)
        try:
            _write_private(self._file(block), content)
        except OSError:
            self._folder = None  # the disk is full or gone: go on in memory
            return
        block.on_disk = True
        self.disk_used += len(content)
        self._index_stale = True
        while self.disk_used > self._disk_cap:
            leaves = [b for b in self._blocks.values() if b.on_disk and not b.children]
            if not leaves:
                return
            self._remove(min(leaves, key=lambda b: b.used))

    def _seal(self, block: Block) -> bytes:
        """A block as the bytes of its file: magic, header length, header, state, MAC."""
        assert block.data is not None
        assert block.parent is not None
        header = _header(block.parent.name, block.offset, block.tokens, whole=block.whole)
        mac = hmac.new(self._key, block.name + block.data, hashlib.sha256).digest()
        return b"".join([_MAGIC, struct.pack("<I", len(header)), header, block.data, mac])

    def _open(self, block: Block, content: bytes) -> bytes | None:
        """The state out of a file's bytes; None when a single bit is not as it was written."""
        begin = len(_MAGIC) + 4
        if len(content) < begin + _NAME_BYTES or content[: len(_MAGIC)] != _MAGIC:
            return None
        (size,) = struct.unpack_from("<I", content, len(_MAGIC))
        data = content[begin + size : -_NAME_BYTES]
        mac = hmac.new(self._key, block.name + data, hashlib.sha256).digest()
        return data if hmac.compare_digest(mac, content[-_NAME_BYTES:]) else None

    def _take_up(self) -> None:
        """Learn what the folder holds; remove what has no place in the trie or no chat."""
        assert self._folder is not None
        waiting: dict[bytes, list[Block]] = {}
        for file in sorted(self._folder.glob("*.blk"), key=_modified):
            read = _read_header(file)
            name = _name_of(file)
            if read is None or self._name(read[0], _offset_of(read), read[2]) != name:
                _unlink(file)
                continue
            parent, offset, tokens, whole = read
            block = Block(name, None, offset, 0, tokens, whole=whole, on_disk=True)
            block.size_bytes = max(0, _size(file) - len(tokens) * 4)
            self._touch(block)
            self._blocks[name] = block
            waiting.setdefault(parent, []).append(block)
        self._link(self._root, waiting)
        for block in [b for b in self._blocks.values() if b.parent is None]:
            del self._blocks[block.name]
            _unlink(self._file(block))
        self.disk_used = sum(_size(self._file(block)) for block in self._blocks.values())
        for chat, names in _read_index(self._folder).items():
            for name, count in names.items():
                found = self._blocks.get(name)
                if found is not None:
                    found.chats[chat] = count
        self._drop_unneeded()

    def _link(self, root: Block, waiting: dict[bytes, list[Block]]) -> None:
        todo = [root]
        while todo:
            parent = todo.pop()
            for block in waiting.get(parent.name, []):
                fits = 0 <= block.offset <= len(parent.tokens) and bool(block.tokens)
                if block.whole and parent is root:
                    block.parent = parent
                    self._checkpoints.append(block)
                elif fits and not block.whole:
                    block.parent, block.start = parent, parent.start + block.offset
                    parent.children[block.offset, block.tokens[0]] = block
                    todo.append(block)

    # --- inside --------------------------------------------------------------------------------

    def _keep(self, block: Block, data: bytes, chat: str) -> None:
        block.data, block.size_bytes = data, len(data)
        self._blocks[block.name] = block
        self.memory_used += len(data)
        self._touch(block)
        self.note(block, chat, len(block.tokens))
        self._keep_memory_cap(but=block)

    def _name(self, parent: bytes, offset: int, tokens: Sequence[int]) -> bytes:
        text = self._identity + parent + struct.pack("<I", offset) + array("i", tokens).tobytes()
        return hmac.new(self._key, text, hashlib.sha256).digest()

    def _file(self, block: Block) -> Path:
        return (self._folder or Path()) / f"{block.name.hex()}.blk"

    def _touch(self, block: Block) -> None:
        self._clock += 1
        node: Block | None = block
        while node is not None and node is not self._root:
            node.used = self._clock
            node = node.parent

    def _keep_memory_cap(self, *, but: Block) -> None:
        if self.memory_used <= self._memory_cap:
            return
        for block in sorted(self._blocks.values(), key=lambda b: (b.used, -b.end)):
            if self.memory_used <= self._memory_cap:
                return
            if block.data is None or block is but:
                continue
            if block.on_disk:
                self.memory_used -= len(block.data)
                block.data = None
            elif not any(_below(block, other) for other in (but,)):
                self._remove(block)

    def _remove(self, block: Block) -> None:
        """Take a block and all that hangs on it away."""
        for child in list(block.children.values()):
            self._remove(child)
        if self._blocks.pop(block.name, None) is None:
            return
        if block.whole:
            self._checkpoints.remove(block)
        elif block.parent is not None:
            block.parent.children.pop((block.offset, block.tokens[0]), None)
        if block in self._unwritten:
            self._unwritten.remove(block)
        if block.data is not None:
            self.memory_used -= len(block.data)
            block.data = None
        if block.on_disk:
            self.disk_used -= _size(self._file(block))
            _unlink(self._file(block))
            self._index_stale = True

    def _drop_unneeded(self) -> None:
        places = {
            block.name: _Place(
                block.parent.name if block.parent else _ROOT, block.offset, block.end
            )
            for block in self._blocks.values()
        }
        lengths = {name: len(block.tokens) for name, block in self._blocks.items()}
        needs = {n: max(b.chats.values()) for n, b in self._blocks.items() if b.chats}
        gone = _unneeded(places, lengths, needs)
        for name in gone:
            for chat in self._blocks[name].chats:
                place = _left_of(name, places, gone)
                if place is not None:
                    self.note(self._blocks[place[0]], chat, place[1])
        for name in gone:
            if name in self._blocks:
                self._remove(self._blocks[name])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a block hangs: its parent's name, the offset there; `depth` grows downwards."""

    parent: bytes
    offset: int
    depth: int


def _unneeded(
    places: Mapping[bytes, _Place], lengths: Mapping[bytes, int], needs: Mapping[bytes, int]
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


def _left_of(
    name: bytes, places: Mapping[bytes, _Place], gone: set[bytes]
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
    for place in _places(folder):
        index = _read_index(place)
        if place == but or not gone & index.keys():
            continue
        kept = {chat: names for chat, names in index.items() if chat not in gone}
        needs: dict[bytes, int] = {}
        for names in kept.values():
            for name, count in names.items():
                needs[name] = max(needs.get(name, 0), count)
        headers = {_name_of(file): _read_header(file) for file in place.glob("*.blk")}
        read = {name: header for name, header in headers.items() if header is not None}
        places = {name: _Place(h[0], h[1], _depth(name, read)) for name, h in read.items()}
        drop = _unneeded(places, {name: len(h[2]) for name, h in read.items()}, needs)
        for file in place.glob("*.blk"):
            if _name_of(file) not in read or _name_of(file) in drop:
                _unlink(file)
        left: dict[str, dict[str, int]] = {}
        for chat, names in kept.items():
            left[chat] = {}
            for name, count in names.items():
                where = _left_of(name, places, drop) if name in drop else (name, count)
                if where is not None:
                    left[chat][where[0].hex()] = max(where[1], left[chat].get(where[0].hex(), 0))
        with contextlib.suppress(OSError):
            _write_private(place / "chats.json", json.dumps(left).encode())


def _depth(name: bytes, headers: Mapping[bytes, _Header]) -> int:
    """How many blocks stand above; what hangs in a ring has no place and comes out deepest."""
    depth = 0
    while name in headers and depth <= len(headers):
        name, depth = headers[name][0], depth + 1
    return depth


# --- files -------------------------------------------------------------------------------------


def _header(parent: bytes, offset: int, tokens: Sequence[int], *, whole: bool) -> bytes:
    ids = array("i", tokens)
    return parent + struct.pack("<IIB", offset, len(ids), whole) + ids.tobytes()


def _read_header(file: Path) -> _Header | None:
    """(parent's name, offset, tokens, whole) of a block's file; None when it is none."""
    fixed = _NAME_BYTES + 9
    try:
        with file.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                return None
            (size,) = struct.unpack("<I", stream.read(4))
            if not fixed <= size <= fixed + 4 * (1 << 22):
                return None
            header = stream.read(size)
    except (OSError, struct.error):
        return None
    if len(header) != size:
        return None
    offset, count, whole = struct.unpack_from("<IIB", header, _NAME_BYTES)
    if size != fixed + 4 * count or count == 0 or whole > 1:
        return None
    tokens = array("i")
    tokens.frombytes(header[fixed:])
    return header[:_NAME_BYTES], offset, tokens.tolist(), bool(whole)


def _offset_of(read: _Header) -> int:
    return 2**32 - 1 if read[3] else read[1]


def _name_of(file: Path) -> bytes:
    try:
        return bytes.fromhex(file.stem)
    except ValueError:
        return b""


def _read_index(place: Path) -> dict[str, dict[bytes, int]]:
    try:
        needs = json.loads((place / "chats.json").read_bytes())
        return {
            str(chat): {bytes.fromhex(name): int(count) for name, count in names.items()}
            for chat, names in needs.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # without it nobody can say who needs what: everything is dropped


def _key(folder: Path) -> bytes:
    """The key of names and MACs, made at first use, readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / "branches.key"
    with contextlib.suppress(FileNotFoundError):
        key = file.read_bytes()
        if len(key) == 32:
            return key
    key = secrets.token_bytes(32)
    _write_private(file, key)
    return key


def _write_private(file: Path, content: bytes) -> None:
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


def _below(top: Block, block: Block | None) -> bool:
    while block is not None:
        if block is top:
            return True
        block = block.parent
    return False


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _unlink(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()


def _places(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from [place for place in (folder / "branches").iterdir() if place.is_dir()]


def _disk_cap(folder: Path) -> int:
    return int(shutil.disk_usage(folder).free * _DISK_SHARE)


def _drop_others(place: Path, cap: int) -> None:
    """Keep other weights' blocks within the cap too: the longest unused weights go first."""
    others = sorted((p for p in place.parent.iterdir() if p != place), key=_modified)
    sizes = {p: sum(_size(file) for file in p.iterdir()) if p.is_dir() else 0 for p in others}
    total = sum(sizes.values())
    for other in others:
        if total <= cap:
            return
        total -= sizes[other]
        shutil.rmtree(other, ignore_errors=True)
