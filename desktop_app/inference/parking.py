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
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from desktop_app.inference.parked_files import (
    MAGIC,
    NAME_BYTES,
    ROOT,
    Place,
    disk_cap,
    drop_others,
    forget_on_disk,
    header_bytes,
    left_of,
    modified,
    name_of,
    offset_of,
    private_key,
    read_header,
    read_index,
    size_of,
    unlink,
    unneeded,
    write_private,
)

BLOCK_TOKENS: Final = 128
_MAX_CHECKPOINTS: Final = 64


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
    def depth(self) -> int:
        """How many blocks stand above."""
        count, node = 0, self.parent
        while node is not None:
            count, node = count + 1, node.parent
        return count

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
        self._root = Block(ROOT, None, 0, 0, [])
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
                self._key = private_key(folder)
                self._folder = folder / "branches" / self._identity.hex()[:32]
                self._folder.parent.mkdir(exist_ok=True, mode=0o700)
                self._folder.mkdir(exist_ok=True, mode=0o700)
                os.utime(self._folder)
                self._disk_cap = disk_cap(self._folder) if disk_bytes is None else disk_bytes
                drop_others(self._folder, self._disk_cap)
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
        name = self._name(ROOT, 2**32 - 1, tokens)
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
            write_private(self._folder / "chats.json", json.dumps(needs).encode())

    def _write(self, block: Block) -> None:
        assert block.data is not None
        content = self._seal(block)
        try:
            write_private(self._file(block), content)
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
        header = header_bytes(block.parent.name, block.offset, block.tokens, whole=block.whole)
        mac = hmac.new(self._key, block.name + block.data, hashlib.sha256).digest()
        return b"".join([MAGIC, struct.pack("<I", len(header)), header, block.data, mac])

    def _open(self, block: Block, content: bytes) -> bytes | None:
        """The state out of a file's bytes; None when a single bit is not as it was written."""
        begin = len(MAGIC) + 4
        if len(content) < begin + NAME_BYTES or content[: len(MAGIC)] != MAGIC:
            return None
        (size,) = struct.unpack_from("<I", content, len(MAGIC))
        data = content[begin + size : -NAME_BYTES]
        mac = hmac.new(self._key, block.name + data, hashlib.sha256).digest()
        return data if hmac.compare_digest(mac, content[-NAME_BYTES:]) else None

    def _take_up(self) -> None:
        """Learn what the folder holds; remove what has no place in the trie or no chat."""
        assert self._folder is not None
        waiting: dict[bytes, list[Block]] = {}
        for file in sorted(self._folder.glob("*.blk"), key=modified):
            read = read_header(file)
            name = name_of(file)
            if read is None or self._name(read[0], offset_of(read), read[2]) != name:
                unlink(file)
                continue
            parent, offset, tokens, whole = read
            block = Block(name, None, offset, 0, tokens, whole=whole, on_disk=True)
            block.size_bytes = max(0, size_of(file) - len(tokens) * 4)
            self._touch(block)
            self._blocks[name] = block
            waiting.setdefault(parent, []).append(block)
        self._link(self._root, waiting)
        for block in [b for b in self._blocks.values() if b.parent is None]:
            del self._blocks[block.name]
            unlink(self._file(block))
        self.disk_used = sum(size_of(self._file(block)) for block in self._blocks.values())
        for chat, names in read_index(self._folder).items():
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
        order = [block]
        for node in order:  # grows while it is walked: whatever hangs below comes behind
            order += node.children.values()
        for node in reversed(order):
            self._remove_one(node)

    def _remove_one(self, block: Block) -> None:
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
            self.disk_used -= size_of(self._file(block))
            unlink(self._file(block))
            self._index_stale = True

    def _drop_unneeded(self) -> None:
        places = {
            block.name: Place(
                block.parent.name if block.parent else ROOT, block.offset, block.depth
            )
            for block in self._blocks.values()
        }
        lengths = {name: len(block.tokens) for name, block in self._blocks.items()}
        needs = {n: max(b.chats.values()) for n, b in self._blocks.items() if b.chats}
        gone = unneeded(places, lengths, needs)
        for name in gone:
            for chat in self._blocks[name].chats:
                place = left_of(name, places, gone)
                if place is not None:
                    self.note(self._blocks[place[0]], chat, place[1])
        for name in gone:
            if name in self._blocks:
                self._remove(self._blocks[name])


def _below(top: Block, block: Block | None) -> bool:
    while block is not None:
        if block is top:
            return True
        block = block.parent
    return False
