"""A thin typed layer over llama.cpp's C interface; the only file that imports `llama_cpp`.

Only the engine child imports this.  All calls are for the child's main thread, except where a
docstring says "any thread".  Nothing here decides anything: policies live in `host` and `branches`.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from desktop_app.errors import KnownError
from desktop_app.inference.protocol import Device


def _import_bindings() -> Any:
    """Import `llama_cpp.llama_cpp` without the package's `__init__`.

    That one imports numpy, jinja2 and a high-level class which the child never uses: 0.2 s and
    22 MB for each start of the engine.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.submodule_search_locations is None:
        raise KnownError(
            "engine-missing",
            "The engine (llama-cpp-python) is not installed. Install Grove again.",
        )
    package = types.ModuleType("llama_cpp")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules.setdefault("llama_cpp", package)
    import llama_cpp.llama_cpp as bindings

    return bindings


bindings: Final[Any] = _import_bindings()
"""llama.cpp's functions; for `context` beside this file and for nobody else."""
_c: Final[Any] = bindings

VocabularyKind = Literal["none", "spm", "bpe", "wpm", "ugm", "rwkv", "plamo2", "test"]
_VOCABULARY_KINDS: Final[tuple[VocabularyKind, ...]] = (
    "none", "spm", "bpe", "wpm", "ugm", "rwkv", "plamo2", "test",
)  # fmt: skip
_DEVICE_KINDS: Final = ("cpu", "gpu", "igpu", "accelerator", "meta")
_ATTR_CONTROL, _ATTR_USER, _ATTR_BYTE = 8, 16, 32  # of llama_token_attr
RPC_LIBRARY: Final = "GROVE_RPC_LIBRARY"
"""The environment variables by which tests offload layers to llama.cpp's RPC servers: the path of
libggml-rpc of the very same llama.cpp, and "host:port,…".  Nothing of Grove sets them."""
RPC_SERVERS: Final = "GROVE_RPC_SERVERS"
_LOG_DEBUG: Final = 1
_LOAD_MODE_NONE: Final = 0  # of llama_load_mode
_SPACE: Final = "\u2581"  # how SentencePiece vocabularies spell a space

_kept_alive: list[Any] = []  # C callbacks that llama.cpp may call as long as the process lives


def start(log: Callable[[str], None]) -> None:
    """Start llama.cpp; its log lines go to `log`, from any of its threads."""

    def write(level: int, text: bytes, _data: object) -> None:
        if level != _LOG_DEBUG:
            log(text.decode("utf-8", "replace"))

    callback = _c.llama_log_callback(write)
    _kept_alive.append(callback)
    _c.llama_log_set(callback, None)
    _c.llama_backend_init()
    library, servers = os.environ.get(RPC_LIBRARY, ""), os.environ.get(RPC_SERVERS, "")
    if library and servers:
        _add_servers(library, servers.split(","))


def _add_servers(library: str, endpoints: Sequence[str]) -> None:
    """Make devices of llama.cpp's RPC servers ("host:port"), as `--rpc` of its own tools does."""
    add = ctypes.CDLL(library).ggml_backend_rpc_add_server
    add.restype, add.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    register = ggml_function("ggml_backend_register", None, ctypes.c_void_p)
    for endpoint in endpoints:
        found = add(endpoint.encode())
        if found:
            register(found)


def engine_name() -> str:
    """Which llama.cpp this is, for provenance."""
    packaged = importlib.metadata.version("llama-cpp-python")
    return f"llama.cpp {_c.llama_version().decode()} (llama-cpp-python {packaged})"


def system_info() -> str:
    """The instruction sets and features that llama.cpp was built with."""
    return str(_c.llama_print_system_info().decode("utf-8", "replace")).strip()


def devices() -> tuple[Device, ...]:
    """What ggml's backends can compute on, with free memory now.  Any thread."""
    function, pointer, size = ggml_function, ctypes.c_void_p, ctypes.c_size_t
    count = function("ggml_backend_dev_count", size)
    get = function("ggml_backend_dev_get", pointer, size)
    name = function("ggml_backend_dev_name", ctypes.c_char_p, pointer)
    description = function("ggml_backend_dev_description", ctypes.c_char_p, pointer)
    kind = function("ggml_backend_dev_type", ctypes.c_int, pointer)
    memory = function(
        "ggml_backend_dev_memory", None, pointer, ctypes.POINTER(size), ctypes.POINTER(size)
    )
    found = []
    for index in range(count()):
        device = get(index)
        free, total = size(), size()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        found.append(
            Device(
                name=name(device).decode("utf-8", "replace"),
                description=description(device).decode("utf-8", "replace"),
                kind=_DEVICE_KINDS[kind(device)],
                free_bytes=free.value,
                total_bytes=total.value,
            )
        )
    return tuple(found)


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Loading was given up because the progress callback said so."""


class Weights:
    """Loaded weights.  Free them with `close` after every context on them."""

    def __init__(
        self,
        path: str,
        *,
        gpu_layers: int,
        mapped: bool = True,
        on_progress: Callable[[float], bool] | None = None,
    ) -> None:
        """Load; `on_progress(fraction)` returning False gives up (Cancelled).

        `mapped`: the file is mapped into memory and computed with where it lies; otherwise it is
        read (see `FileFacts.repacked_bytes`).
        KnownError("weights-unreadable") when llama.cpp refuses the file; why is in its log.
        """
        params = _c.llama_model_default_params()
        params.n_gpu_layers = gpu_layers if gpu_layers >= 0 else 0
        if not mapped:
            params.load_mode = _LOAD_MODE_NONE
        given_up = False

        def progress(fraction: float, _data: object) -> bool:
            nonlocal given_up
            if on_progress is not None and not on_progress(fraction):
                given_up = True
            return not given_up

        callback = _c.llama_progress_callback(progress)
        params.progress_callback = callback
        self._model = _c.llama_model_load_from_file(path.encode("utf-8", "surrogateescape"), params)
        if not self._model:
            if given_up:
                raise Cancelled
            raise KnownError(
                "weights-unreadable",
                "The engine cannot read these weights: the file is damaged, incomplete, or of a "
                "kind that this version does not know. Download it again or choose another.",
            )
        self.vocabulary = Vocabulary(self._model, path)

    @property
    def handle(self) -> Any:
        """llama.cpp's own pointer."""
        return self._model

    def close(self) -> None:
        """Free the memory."""
        if self._model:
            _c.llama_model_free(self._model)
            self._model = None

    def meta(self, key: str) -> str | None:
        """A scalar of the file's header as text, None if there is none (arrays are none)."""
        return _meta(self._model, key)

    @cached_property
    def description(self) -> str:
        """Such as "llama 1B Q4_0"."""
        buffer = ctypes.create_string_buffer(256)
        _c.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @cached_property
    def quantisation(self) -> str:
        """Such as "Q4_0"."""
        name = _file_type_name(_c.llama_model_ftype(self._model))
        return name.removeprefix("(guessed) ")

    @cached_property
    def size_bytes(self) -> int:
        """The size of all tensors."""
        return int(_c.llama_model_size(self._model))

    @cached_property
    def parameters(self) -> int:
        """The number of parameters."""
        return int(_c.llama_model_n_params(self._model))

    @cached_property
    def trained_context(self) -> int:
        """Tokens the weights were trained on."""
        return int(_c.llama_model_n_ctx_train(self._model))

    @cached_property
    def layers(self) -> int:
        """Number of layers."""
        return int(_c.llama_model_n_layer(self._model))

    @cached_property
    def heads(self) -> tuple[int, int]:
        """Attention heads, and of these with keys and values of their own (first layer)."""
        return int(_c.llama_model_n_head(self._model)), int(_c.llama_model_n_head_kv(self._model))

    @cached_property
    def embedding(self) -> int:
        """Width of the residual stream."""
        return int(_c.llama_model_n_embd(self._model))

    @cached_property
    def window(self) -> int:
        """Tokens that a sliding-window layer sees, 0 without such layers."""
        return int(_c.llama_model_n_swa(self._model))

    @cached_property
    def recurrent(self) -> bool:
        """Whether a part of the state is recurrent: it cannot be cut back to an earlier token."""
        return bool(
            _c.llama_model_is_recurrent(self._model) or _c.llama_model_is_hybrid(self._model)
        )

    @cached_property
    def writes_text(self) -> bool:
        """Whether these weights can write at all: a decoder, not an embedder or a diffuser."""
        architecture = self.meta("general.architecture") or ""
        return bool(
            self.meta(f"{architecture}.attention.causal") != "false"
            and _c.llama_model_has_decoder(self._model)
            and not _c.llama_model_has_encoder(self._model)
            and not _c.llama_model_is_diffusion(self._model)
        )


class _GgufInit(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


_pointer: Final = ctypes.c_void_p
# Q4_0, Q4_K, IQ4_NL, MXFP4 (ggml_type), the types of ggml-cpu/repack.cpp on every processor.
_REPACKED: Final = frozenset({2, 12, 20, 39})


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file's header says before it is loaded.  Sizes in bytes.

    `repacked_bytes` of the `tensor_bytes` are of types that the CPU backend rewrites into an order
    that its kernels read quicker.  A mapped file then is in memory twice: as it lies on disk, and
    rewritten.
    """

    layers: int
    tensor_bytes: int
    repacked_bytes: int


def file_facts(paths: Sequence[str]) -> FileFacts:
    """Look into the headers of weights (all shards, the first one first), without loading them.

    What cannot be read counts as nothing: loading will say why.
    """
    layers = tensors = repacked = 0
    for path in paths:
        header = ggml_function("gguf_init_from_file", _pointer, ctypes.c_char_p, _GgufInit)(
            path.encode("utf-8", "surrogateescape"), _GgufInit(True, None)
        )
        if not header:
            continue
        layers = layers or _block_count(header)
        count = ggml_function("gguf_get_n_tensors", ctypes.c_int64, _pointer)(header)
        size_of = ggml_function("gguf_get_tensor_size", ctypes.c_size_t, _pointer, ctypes.c_int64)
        type_of = ggml_function("gguf_get_tensor_type", ctypes.c_int, _pointer, ctypes.c_int64)
        name_of = ggml_function("gguf_get_tensor_name", ctypes.c_char_p, _pointer, ctypes.c_int64)
        for index in range(count):
            size = size_of(header, index)
            tensors += size
            table = name_of(header, index).startswith((b"token_embd", b"per_layer_token_embd"))
            if type_of(header, index) in _REPACKED and not table:
                repacked += size
        ggml_function("gguf_free", None, _pointer)(header)
    return FileFacts(layers, tensors, repacked)


def ggml_function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml that the bindings do not wrap, from the copy that llama.cpp itself uses.

    Wheels hold each library under several names; loaded by another name it would be a second copy,
    with devices of its own.  A handle finds what its dependencies offer, except on Windows.
    """
    try:
        function = getattr(_c._lib, name)  # noqa: SLF001 - the only way to that very library
    except AttributeError:
        from llama_cpp._ctypes_extensions import load_shared_library
        from llama_cpp._ggml import libggml_base_path

        if name in ("ggml_threadpool_new", "ggml_threadpool_free", "ggml_threadpool_pause"):
            kind = "ggml-cpu"
        else:
            kind = "ggml-base" if name.startswith(("gguf_", "ggml_threadpool_")) else "ggml"
        function = getattr(load_shared_library(kind, libggml_base_path), name)
    function.restype, function.argtypes = result, list(arguments)
    return function


def _block_count(header: Any) -> int:
    find = ggml_function("gguf_find_key", ctypes.c_int64, _pointer, ctypes.c_char_p)
    kind = ggml_function("gguf_get_kv_type", ctypes.c_int, _pointer, ctypes.c_int64)
    architecture = find(header, b"general.architecture")
    if architecture < 0 or kind(header, architecture) != 8:  # GGUF_TYPE_STRING
        return 0
    text = ggml_function("gguf_get_val_str", ctypes.c_char_p, _pointer, ctypes.c_int64)
    place = find(header, text(header, architecture) + b".block_count")
    if place < 0 or kind(header, place) != 4:  # GGUF_TYPE_UINT32
        return 0
    return int(
        ggml_function("gguf_get_val_u32", ctypes.c_uint32, _pointer, ctypes.c_int64)(header, place)
    )


def _meta(model: Any, key: str) -> str | None:
    size = 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        needed = _c.llama_model_meta_val_str(model, key.encode(), buffer, size)
        if needed < 0:
            return None
        if needed < size:
            return buffer.value.decode("utf-8", "replace")
        size = needed + 1


def _file_type_name(file_type: int) -> str:
    function = _c._lib.llama_ftype_name  # noqa: SLF001 - the bindings do not wrap this function yet
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_int]
    return str(function(file_type).decode("utf-8", "replace"))


class Vocabulary:
    """The tokens of loaded weights; satisfies `prompt.Vocab`.  Any thread."""

    def __init__(self, model: Any, path: str) -> None:
        self._model = model
        self._vocab = vocab = _c.llama_model_get_vocab(model)
        self.name: str = f"{_meta(model, 'general.name') or ''} {Path(path).name}".strip()
        self.kind: VocabularyKind = _VOCABULARY_KINDS[_c.llama_vocab_type(vocab)]
        self.n_vocab: int = _c.llama_vocab_n_tokens(vocab)
        self.add_bos: bool = _c.llama_vocab_get_add_bos(vocab)
        self.bos_id: int = _c.llama_vocab_bos(vocab)
        self.eos_id: int = _c.llama_vocab_eos(vocab)
        self.eot_id: int = _c.llama_vocab_eot(vocab)
        self.ends_turn: frozenset[int] = frozenset(
            token for token in range(self.n_vocab) if _c.llama_vocab_is_eog(vocab, token)
        )
        attribute = _c.llama_vocab_get_attr
        self._attributes: list[int] = [attribute(vocab, token) for token in range(self.n_vocab)]
        self._pieces: dict[int, bytes] = {}
        found = _c.llama_model_chat_template(model, None)
        self.chat_template: str = found.decode("utf-8", "replace") if found else ""

    def is_control(self, token: int) -> bool:
        """Whether the token is markup of the prompt, not text."""
        return bool(self._attributes[token] & _ATTR_CONTROL)

    def token_attributes(self, token: int) -> int:
        """`llama_vocab_get_attr`."""
        return self._attributes[token]

    def token_text(self, token: int) -> str:
        """The token as the vocabulary spells it."""
        return str(_c.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace"))

    @cached_property
    def has_bytes(self) -> bool:
        """Whether every byte has a token, so that any text can be spelled."""
        if self.kind != "spm":
            return True
        found = {
            self.token_text(token)
            for token in range(self.n_vocab)
            if self._attributes[token] & _ATTR_BYTE
        }
        return found >= {f"<0x{byte:02X}>" for byte in range(256)}

    @cached_property
    def _spellings(self) -> frozenset[bytes]:
        return frozenset(
            _c.llama_vocab_get_text(self._vocab, token) for token in range(self.n_vocab)
        )

    @cached_property
    def _marks(self) -> list[str]:
        """Control and user-defined tokens, the longest first: they are found before text is cut."""
        marks = (
            self.token_text(token)
            for token in range(self.n_vocab)
            if self._attributes[token] & (_ATTR_CONTROL | _ATTR_USER)
        )
        return sorted(filter(None, marks), key=len, reverse=True)

    def unspellable(self, text: str, *, parse_special: bool = False) -> str:
        """The first character of `text` that has no token, "" if there is none.

        llama.cpp's SentencePiece tokeniser falls back to byte tokens for a character without one,
        and aborts the process when these are missing (`llama_vocab::byte_to_token`).
        """
        if self.has_bytes:
            return ""
        if parse_special:
            for mark in self._marks:
                text = text.replace(mark, "")
        known = self._spellings
        for character in dict.fromkeys(text):
            spelled = (_SPACE if character == " " else character).encode("utf-8", "surrogatepass")
            by_bytes = (b"<0x%02X>" % byte in known or bytes([byte]) in known for byte in spelled)
            if spelled not in known and not all(by_bytes):
                return character
        return ""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of `text`.

        `add_special`: with the begin and end tokens that the vocabulary asks for.
        `parse_special`: strings of control tokens become these tokens.
        KnownError("text-unspellable") when the vocabulary has no token for a character.
        """
        missing = self.unspellable(text, parse_special=parse_special)
        if missing:
            raise KnownError(
                "text-unspellable",
                f"These weights cannot read the character “{missing}”. "
                "Leave it out, or choose other weights.",
            )
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        while True:
            buffer = (_c.llama_token * size)()
            count = _c.llama_tokenize(
                self._vocab, data, len(data), buffer, size, add_special, parse_special
            )
            if count >= 0:
                return list(buffer[:count])
            if count == -(2**31):
                raise KnownError(
                    "message-too-long", "This message is far too long for any weights."
                )
            size = -count

    def token_piece(self, token: int) -> bytes:
        """The bytes that a token stands for, control tokens spelled out."""
        found = self._pieces.get(token)
        if found is None:
            size = 64
            while True:
                buffer = ctypes.create_string_buffer(size)
                count = _c.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
                if count >= 0:
                    break
                size = -count
            found = self._pieces[token] = buffer.raw[:count]
        return found
