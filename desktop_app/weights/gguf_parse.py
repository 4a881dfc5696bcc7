"""The bytes of a GGUF header as typed values, with bounds on everything.

Format: the GGUF specification (ggml's ``docs/gguf.md``), versions 2 and 3, little-endian.  The
rules are those of llama.cpp's own reader, plus limits on counts, so that no file of any content
can take more than a second or more memory than a large real header.

Nothing here knows what the keys mean: see `gguf_checks` and `gguf`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NoReturn, Protocol

from desktop_app.errors import KnownError

MAX_HEADER_BYTES: Final = 192 << 20
MAX_KEYS: Final = 20_000
MAX_TENSORS: Final = 120_000
MAX_STRINGS: Final = 3_000_000
MAX_KEY_BYTES: Final = 65_535
# ggml stores a tensor's name in 64 bytes, the last of them a NUL.
MAX_TENSOR_NAME_BYTES: Final = 63
MAX_DIMENSIONS: Final = 4
DEFAULT_ALIGNMENT: Final = 32
# Numeric arrays above this length are kept as raw bytes only.
MAX_DECODED_ITEMS: Final = 4_000_000

_STRING: Final = 8
_ARRAY: Final = 9
_BOOL: Final = 7
# GGUF value type → (struct letter, bytes)
_SCALARS: Final[dict[int, tuple[str, int]]] = {
    0: ("B", 1),
    1: ("b", 1),
    2: ("H", 2),
    3: ("h", 2),
    4: ("I", 4),
    5: ("i", 4),
    6: ("f", 4),
    _BOOL: ("?", 1),
    10: ("Q", 8),
    11: ("q", 8),
    12: ("d", 8),
}
KIND_NAMES: Final[dict[int, str]] = {
    0: "u8",
    1: "i8",
    2: "u16",
    3: "i16",
    4: "u32",
    5: "i32",
    6: "f32",
    7: "bool",
    8: "str",
    9: "array",
    10: "u64",
    11: "i64",
    12: "f64",
}
# ggml tensor type → (name, elements per block, bytes per block); missing ids were withdrawn.
TENSOR_TYPES: Final[dict[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}

Scalar = int | float | bool | bytes


class ByteSource(Protocol):
    """Bytes that can be read at any offset: a file, a buffer, or a file behind HTTP ranges."""

    @property
    def size_bytes(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer only at the end.  May raise KnownError."""


class BytesSource:
    """A whole file held in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size_bytes(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class FileSource:
    """A file on disk; use as a context manager.  Raises KnownError when it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        try:
            self._file = path.open("rb", buffering=0)
            self._size_bytes = path.stat().st_size
        except OSError as error:
            self._close_and_raise(error)

    def _close_and_raise(self, error: OSError) -> NoReturn:
        self.close()
        if isinstance(error, FileNotFoundError):
            raise KnownError(
                "weights-missing",
                f"The file {self._path.name} is not there any more. Connect its drive, or choose "
                "another file.",
                detail=str(error),
            ) from error
        raise KnownError(
            "weights-unreadable",
            f"The file {self._path.name} cannot be read. Check its permissions and its drive.",
            detail=str(error),
        ) from error

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        assert self._file is not None
        try:
            self._file.seek(offset)
            pieces = []
            while length > 0 and (piece := self._file.read(length)):
                pieces.append(piece)
                length -= len(piece)
        except OSError as error:
            self._close_and_raise(error)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


@dataclass(slots=True)
class Value:
    """One metadata value.  `kind` is the GGUF type (of the items, for an array)."""

    kind: int
    is_array: bool
    # One scalar; or for arrays of strings a list of bytes, for other arrays the packed items.
    scalar: Scalar = 0
    strings: list[bytes] = field(default_factory=list)
    packed: bytes = b""
    length: int = 1

    def numbers(self) -> tuple[int | float | bool, ...]:
        """The items of a numeric array, decoded.  Empty for everything else."""
        if not self.is_array or self.kind == _STRING or self.length > MAX_DECODED_ITEMS:
            return ()
        letter, _ = _SCALARS[self.kind]
        return struct.unpack(f"<{self.length}{letter}", self.packed)


@dataclass(slots=True, frozen=True)
class TensorInfo:
    """Name, shape (fastest dimension first), ggml type and place of one tensor."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    size_bytes: int

    @property
    def type_name(self) -> str:
        return TENSOR_TYPES[self.type_id][0]

    @property
    def elements(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(slots=True)
class RawHeader:
    """What the header says, not yet interpreted."""

    version: int
    values: dict[str, Value]
    tensors: list[TensorInfo]
    alignment: int
    data_offset: int
    file_bytes: int
    # Without the padding after the last tensor, which some writers leave out.
    data_bytes: int


def damaged(why: str) -> KnownError:
    """The error for a file that breaks the format; `why` goes into its detail."""
    return KnownError(
        "weights-damaged",
        "This weights file is damaged and cannot be used. Download it again or choose another.",
        detail=why,
    )


def truncated(why: str) -> KnownError:
    """The error for a file that ends before its header says so."""
    return KnownError(
        "weights-truncated",
        "This weights file is incomplete: its end is missing. Download it again.",
        detail=why,
    )


class _Cursor:
    """Reads forward through a source, fetching ever larger pieces as they are needed."""

    def __init__(self, source: ByteSource, first_fetch_bytes: int) -> None:
        self.size_bytes = source.size_bytes
        self.at = 0
        self.buffer = b""
        self._source = source
        self._fetch_bytes = first_fetch_bytes
        self._strings_left = MAX_STRINGS

    def need(self, length: int) -> None:
        """Have `length` more bytes in the buffer, or raise."""
        end = self.at + length
        if end <= len(self.buffer):
            return
        if end > self.size_bytes:
            raise truncated(f"the header goes on behind the end of the file ({self.size_bytes} B)")
        if end > MAX_HEADER_BYTES:
            raise damaged(f"the header is larger than {MAX_HEADER_BYTES} B")
        have = len(self.buffer)
        wanted = min(max(end, have + self._fetch_bytes), self.size_bytes)
        self._fetch_bytes = min(self._fetch_bytes * 2, 32 << 20)
        more = self._source.read_at(have, wanted - have)
        self.buffer = self.buffer + more if have else more
        if len(self.buffer) < end:
            raise truncated("the file ended while its header was being read")

    def scalar(self, letter: str, size: int) -> int | float | bool:
        self.need(size)
        value: int | float | bool = struct.unpack_from("<" + letter, self.buffer, self.at)[0]
        self.at += size
        return value

    def u32(self) -> int:
        return int(self.scalar("I", 4))

    def u64(self) -> int:
        return int(self.scalar("Q", 8))

    def string(self) -> bytes:
        length = self.u64()
        if length > self.size_bytes - self.at:
            raise truncated(f"a string of {length} B ends behind the file")
        self.need(length)
        value = self.buffer[self.at : self.at + length]
        self.at += length
        return value

    def packed(self, length: int) -> bytes:
        self.need(length)
        value = self.buffer[self.at : self.at + length]
        self.at += length
        return value

    def strings(self, count: int) -> list[bytes]:
        """`count` strings.  The one hot loop: 0.15 µs an entry."""
        if count > self._strings_left:
            raise damaged(f"more than {MAX_STRINGS} strings")
        if count * 8 > self.size_bytes - self.at:
            raise truncated(f"{count} strings end behind the file")
        self._strings_left -= count
        unpack_length = struct.Struct("<Q").unpack_from
        found: list[bytes] = []
        append = found.append
        while len(found) < count:
            buffer = self.buffer
            at = self.at
            end = len(buffer)
            for _ in range(count - len(found)):
                start = at + 8
                if start > end:
                    break
                stop = start + unpack_length(buffer, at)[0]
                if stop > end:
                    break
                append(buffer[start:stop])
                at = stop
            self.at = at
            if len(found) < count:
                append(self.string())  # one entry across the edge of the buffer; fetches more
        return found


def parse(source: ByteSource, *, first_fetch_bytes: int = 2 << 20) -> RawHeader:
    """Read a header from its first byte to its tensor list.

    Raises KnownError: ``weights-not-gguf``, ``weights-version-1``, ``weights-version``,
    ``weights-big-endian``, ``weights-truncated``, ``weights-damaged``, or what the source raises.
    """
    cursor = _Cursor(source, first_fetch_bytes)
    version, tensor_count, key_count = _read_start(cursor)
    values: dict[str, Value] = {}
    for _ in range(key_count):
        name = cursor.string()
        if not 0 < len(name) <= MAX_KEY_BYTES:
            raise damaged(f"a key has {len(name)} B")
        # llama.cpp compares whole bytes here and C strings elsewhere; a NUL has no honest use.
        if b"\0" in name:
            raise damaged("a key contains a NUL")
        key = name.decode("utf-8", "backslashreplace")
        if key in values:
            raise damaged(f"the key {key!r} stands twice")
        values[key] = _read_value(cursor, key)
    alignment = _alignment(values)
    tensors = [_read_tensor(cursor) for _ in range(tensor_count)]
    data_offset = -(-cursor.at // alignment) * alignment if tensors else cursor.at
    data_bytes = _check_extents(tensors, alignment)
    if data_offset + data_bytes > cursor.size_bytes:
        raise truncated(
            f"the tensors end at {data_offset + data_bytes} B, the file at {cursor.size_bytes} B"
        )
    return RawHeader(
        version, values, tensors, alignment, data_offset, cursor.size_bytes, data_bytes
    )


def _read_start(cursor: _Cursor) -> tuple[int, int, int]:
    if cursor.size_bytes < 4 or cursor.packed(4) != b"GGUF":
        raise KnownError(
            "weights-not-gguf",
            "This is not a weights file in the GGUF format. Choose a file that ends in .gguf.",
        )
    version = cursor.u32()
    if version == 1:
        raise KnownError(
            "weights-version-1",
            "This weights file has the first version of the GGUF format, which is no longer "
            "supported. Download a newer file of these weights.",
        )
    if version and version & 0xFFFF == 0:
        raise KnownError(
            "weights-big-endian",
            "This weights file was made for computers with another byte order. Download the "
            "little-endian file of these weights.",
        )
    if version not in (2, 3):
        raise KnownError(
            "weights-version",
            "This weights file has a GGUF version that Grove does not know. Update Grove or "
            "choose another file.",
            detail=f"version {version}",
        )
    tensor_count = cursor.u64()
    key_count = cursor.u64()
    if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
        raise damaged(f"{tensor_count} tensors and {key_count} keys are announced")
    return version, tensor_count, key_count


def _read_value(cursor: _Cursor, key: str) -> Value:
    kind = cursor.u32()
    if kind == _STRING:
        return Value(kind, is_array=False, scalar=cursor.string())
    if kind in _SCALARS:
        letter, size = _SCALARS[kind]
        return Value(kind, is_array=False, scalar=cursor.scalar(letter, size))
    if kind != _ARRAY:
        raise damaged(f"the key {key!r} has the unknown type {kind}")
    kind = cursor.u32()
    length = cursor.u64()
    if kind == _STRING:
        return Value(kind, is_array=True, strings=cursor.strings(length), length=length)
    if kind not in _SCALARS:
        raise damaged(f"the array {key!r} has items of the unknown type {kind}")
    size = _SCALARS[kind][1]
    if length > (cursor.size_bytes - cursor.at) // size:
        raise truncated(f"the array {key!r} of {length} items ends behind the file")
    return Value(kind, is_array=True, packed=cursor.packed(length * size), length=length)


def _alignment(values: dict[str, Value]) -> int:
    value = values.get("general.alignment")
    if value is None:
        return DEFAULT_ALIGNMENT
    if value.is_array or KIND_NAMES[value.kind] != "u32":
        raise damaged("general.alignment is not a u32")
    alignment = int(value.scalar)
    if alignment == 0 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise damaged(f"general.alignment is {alignment}")
    return alignment


def _read_tensor(cursor: _Cursor) -> TensorInfo:
    name = cursor.string()
    if not 0 < len(name) <= MAX_TENSOR_NAME_BYTES or b"\0" in name:
        raise damaged(f"a tensor's name has {len(name)} B or a NUL")
    text = name.decode("utf-8", "backslashreplace")
    dimensions = cursor.u32()
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise damaged(f"the tensor {text!r} has {dimensions} dimensions")
    cursor.need(8 * dimensions + 12)
    *shape, type_id, offset = struct.unpack_from(f"<{dimensions}QIQ", cursor.buffer, cursor.at)
    cursor.at += 8 * dimensions + 12
    if type_id not in TENSOR_TYPES:
        raise damaged(f"the tensor {text!r} has the unknown type {type_id}")
    _, block_elements, block_bytes = TENSOR_TYPES[type_id]
    if shape[0] % block_elements:
        raise damaged(f"rows of the tensor {text!r} are not whole blocks")
    elements = 1
    for extent in shape:
        elements *= extent
    if elements <= 0 or elements >= 1 << 62:
        raise damaged(f"the tensor {text!r} has {elements} elements")
    size_bytes = elements // block_elements * block_bytes
    return TensorInfo(text, tuple(shape), type_id, offset, size_bytes)


def _check_extents(tensors: list[TensorInfo], alignment: int) -> int:
    """llama.cpp wants tensors back to back in file order.  Returns where the last one ends."""
    expected = 0
    end = 0
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise damaged(f"the tensor {tensor.name!r} stands twice")
        names.add(tensor.name)
        if tensor.offset != expected:
            raise damaged(f"the tensor {tensor.name!r} is at {tensor.offset}, not {expected}")
        end = tensor.offset + tensor.size_bytes
        expected = -(-end // alignment) * alignment
    return end
