"""The messages between the app and its engine child: what they say and how they are written.

One message is one line of JSON (UTF-8, no newline inside).  Commands go to the child's stdin,
events come back on its original stdout.  Every line is an object with ``"type"`` (the message),
``"job"`` (the number of the job it belongs to, 0 for none) and the message's own fields.  Both
sides must speak the same `PROTOCOL_VERSION`, which the child tells in its first line; they are
always of one build, so there is no negotiation.

All classes here are immutable values, safe to hand from thread to thread.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Final, Literal, TypeVar, Union, cast

from desktop_app.errors import KnownError
from desktop_app.inference.sampling import Sampling

PROTOCOL_VERSION: Final = 2

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Kind = Literal["text", "reasoning"]
Finish = Literal["stop", "length", "cancelled", "overflow"]
"""Why a reply ended: the weights ended the turn (or a stop string came), `max_tokens` was reached,
somebody cancelled it, the context is full."""


# --- commands ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WeightsSpec:
    """Which weights to load and how.

    `context_length` in tokens, 0: as trained, at most 8,192, and what fits into memory.  `threads`
    0: measured.  `gpu_layers` -1: as many as fit.  `kv_type` is the type of the KV cache's numbers;
    "auto" takes q8_0 where f16 would need a shorter context.  `flash_attention` "auto": where the
    devices can.  `sequences` is how many branches may be resident at once (0: automatic).
    """

    path: str
    context_length: int = 0
    threads: int = 0
    gpu_layers: int = -1
    kv_type: Literal["auto", "f16", "q8_0"] = "f16"
    sequences: int = 0
    flash_attention: Literal["auto", "on", "off"] = "auto"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of the path.  `role` is "system", "user", "assistant" or "tool".

    `tokens` are the ids that the engine told when it wrote this reply (`Finished.tokens`), if known
    and if the text still is what was generated: the prompt then holds these instead of tokenising
    the text anew, where the template reproduces the text verbatim.
    """

    role: str
    text: str
    reasoning: str = ""
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Write a reply below `messages` (root first).

    `template`: "auto" (the file's own, else a recognised family), a family's name
    ("oasst", "chatml", "llama2", "llama3", "plain"), or the source of a Jinja template.
    `continue_last`: the last message is the assistant's own and is continued from its end.
    `drafts` (1-8) replies are written side by side, draft n with seed + n.
    `chat` names the conversation for the branch cache (see `Engine.forget`); "" is never kept on
    disk.  `prompt_tokens`, when given, is the prompt itself, and `messages` is not looked at.
    `seeds`, when given, are the drafts' seeds instead of seed + n.
    """

    messages: tuple[ChatMessage, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    template: str = "auto"
    continue_last: bool = False
    drafts: int = 1
    chat: str = ""
    prompt_tokens: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """Read the beginning of the prompt that these messages would make, while nothing else is to do.

    The last message is being typed: only what stands before the end of its words is read, nothing
    is written, and what is read of it is kept in memory only, until a request comes or it is
    dropped.  Replaces what was read ahead before; without messages that is dropped from memory.
    Answered by `HasRead`, at the latest when somebody else needs the engine.  `sampling`,
    `template` and `chat` as in the request that will follow.
    """

    messages: tuple[ChatMessage, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    template: str = "auto"
    chat: str = ""


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """Tell the text and tokens of a prompt without writing anything."""

    messages: tuple[ChatMessage, ...]
    template: str = "auto"
    continue_last: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the job of this line, or only its draft number `draft`."""

    draft: int | None = None


@dataclass(frozen=True, slots=True)
class Unload:
    """Free the weights; answered by `Unloaded`."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Erase what the branch cache keeps for these chats; answered by `Forgotten`."""

    chats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetThreads:
    """Use this many threads from the next step on."""

    threads: int


Command = (
    WeightsSpec
    | GenerateRequest
    | ReadAhead
    | RenderRequest
    | Cancel
    | Unload
    | Forget
    | SetThreads
)


# --- events ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """A device that llama.cpp can compute on.  Memory in bytes."""

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Hello:
    """The child's first line."""

    protocol: int
    engine: str
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """`fraction` (0-1) of the weights is loaded."""

    fraction: float


@dataclass(frozen=True, slots=True)
class ThreadSpeed:
    """How many tokens a second this many threads wrote, one reply alone and with little context."""

    threads: int
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What is loaded.  Sizes in bytes, lengths in tokens.

    `hash` is a fingerprint, not a checksum of all bytes: sha256 over the size, the first MiB
    (header and vocabulary's beginning), the last MiB and 62 blocks of 64 KiB at even distances, per
    shard.  `memory_bytes` is weights plus KV cache as estimated.  `can_roll_back` is False for
    weights whose state cannot be cut back to an earlier token (recurrent, hybrid).
    `offload_reason` says in words why so many layers went to a device.  `threads` is what a reply
    begins with; why: `threads_choice` ("fixed" by somebody, "small" weights, "measured" now or
    "remembered" from an earlier load, "busy" beside other programs), and what was measured in
    `threads_measured`.
    """

    path: str
    name: str
    architecture: str
    description: str
    quantisation: str
    hash: str
    size_bytes: int
    memory_bytes: int
    parameters: int
    context_length: int
    trained_context: int
    vocabulary: int
    has_template: bool
    template_family: str
    threads: int
    gpu_layers: int
    offload_reason: str
    kv_type: str
    flash_attention: bool
    can_roll_back: bool
    sequences: int
    kv_bytes_per_token: int
    engine: str
    threads_choice: str = ""
    threads_measured: tuple[ThreadSpeed, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """The weights are ready."""

    info: LoadedWeights


@dataclass(frozen=True, slots=True)
class Unloaded:
    """The weights are gone from memory."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was asked to be erased is erased."""


@dataclass(frozen=True, slots=True)
class ReadProgress:
    """`done` of `total` tokens of the prompt are read; `kept` of them were in the cache."""

    done: int
    total: int
    kept: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The next `n_tokens` tokens of draft `draft`, as whole characters."""

    draft: int
    text: str
    kind: Kind = "text"
    n_tokens: int = 1


@dataclass(frozen=True, slots=True)
class Counters:
    """Tokens: in the prompt, of these found in the cache, read anew, and written."""

    prompt_tokens: int = 0
    kept_tokens: int = 0
    evaluated_tokens: int = 0
    generated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds: from the request to the first token, reading the prompt, writing; and the speed."""

    first_token_s: float = 0.0
    read_s: float = 0.0
    write_s: float = 0.0
    tokens_per_s: float = 0.0
    prompt_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """Draft `draft` is complete.

    `turn` is the reply's provenance (engine, weights, hash, quantisation, template hash, sampling,
    seed, threads, …) as JSON.  `tokens` are the ids written (without the one that ended the turn).
    `left_out` is the number of messages that did not fit and were left out.
    """

    draft: int
    finish: Finish
    counters: Counters
    timings: Timings
    turn: Mapping[str, Json]
    tokens: tuple[int, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt: its text, its token ids, and the text of each token.

    `kept_tokens` of them are in the cache, resident or parked: the rest would be read anew.
    """

    text: str
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    template_family: str = ""
    left_out: int = 0
    kept_tokens: int = 0


@dataclass(frozen=True, slots=True)
class HasRead:
    """Reading ahead is over or was given up.

    Of `total` tokens `kept` were known and `read` were read; when these are fewer, somebody else
    needed the engine.
    """

    total: int
    kept: int
    read: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The job failed; nothing else follows for it."""

    code: str
    sentence: str
    detail: str = ""

    @property
    def error(self) -> KnownError:
        """The failure as an exception."""
        return KnownError(self.code, self.sentence, detail=self.detail)

    @staticmethod
    def of(error: KnownError) -> Failed:
        """The event for an exception."""
        return Failed(error.code, error.sentence, error.detail)


Event = (
    Hello
    | LoadProgress
    | Loaded
    | Unloaded
    | Forgotten
    | ReadProgress
    | Piece
    | Finished
    | Rendered
    | HasRead
    | Failed
)

_COMMANDS: Final[Mapping[str, type[Command]]] = {
    "load": WeightsSpec,
    "generate": GenerateRequest,
    "read_ahead": ReadAhead,
    "render": RenderRequest,
    "cancel": Cancel,
    "unload": Unload,
    "forget": Forget,
    "set_threads": SetThreads,
}
_EVENTS: Final[Mapping[str, type[Event]]] = {
    "hello": Hello,
    "load_progress": LoadProgress,
    "loaded": Loaded,
    "unloaded": Unloaded,
    "forgotten": Forgotten,
    "read_progress": ReadProgress,
    "piece": Piece,
    "finished": Finished,
    "rendered": Rendered,
    "has_read": HasRead,
    "failed": Failed,
}
_NAMES: Final[Mapping[type, str]] = {
    **{cls: name for name, cls in _COMMANDS.items()},
    **{cls: name for name, cls in _EVENTS.items()},
}


class ProtocolError(ValueError):
    """A line that is not a message: the other side is not what we think it is."""


def event_name(event: Event) -> str:
    """The event's name on the wire, such as "piece"."""
    return _NAMES[type(event)]


# --- lines -------------------------------------------------------------------------------------


def encode(job: int, message: Command | Event) -> bytes:
    """One line, with its newline."""
    body = {"type": _NAMES[type(message)], "job": job, **to_json(message)}
    # ASCII with escapes: lone surrogates in foreign text survive, and no line separator slips in.
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def decode_command(line: bytes) -> tuple[int, Command]:
    """Read a line of the app; ProtocolError when it is none."""
    return _decode(line, _COMMANDS)


def decode_event(line: bytes) -> tuple[int, Event]:
    """Read a line of the child; ProtocolError when it is none."""
    return _decode(line, _EVENTS)


_T = TypeVar("_T")


def _decode(line: bytes, known: Mapping[str, type[_T]]) -> tuple[int, _T]:
    try:
        body = json.loads(line)
        job, cls = body.pop("job"), known[body.pop("type")]
        if not isinstance(job, int):
            raise TypeError("job is no number")
        return job, from_json(cls, body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"{type(error).__name__}: {error}") from None


def to_json(value: object) -> dict[str, Json]:
    """A dataclass as JSON values."""
    assert is_dataclass(value)
    return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}


def _plain(value: Any) -> Json:
    if is_dataclass(value):
        return to_json(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return cast("Json", value)


def from_json(cls: type[_T], value: Mapping[str, Any]) -> _T:
    """A dataclass from JSON values; ValueError or TypeError when they do not fit its types."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{cls.__name__} is no object")
    hints = _hints(cast("Any", cls))
    unknown = value.keys() - hints.keys()
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}")
    return cls(**{name: _typed(hints[name], item) for name, item in value.items()})


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _typed(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if is_dataclass(hint):
        return from_json(cast("type[Any]", hint), value)
    if origin is tuple:
        (item, _dots) = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            raise TypeError("a list was expected")
        if item is int:
            if not all(type(entry) is int for entry in value):
                raise TypeError("a list of numbers was expected")
            return tuple(value)
        return tuple(_typed(item, entry) for entry in value)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{value!r} is none of {typing.get_args(hint)}")
        return value
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        return _typed(hint, value)
    if origin is not None:  # Mapping[str, Json]
        if not isinstance(value, Mapping):
            raise TypeError("an object was expected")
        return value
    if hint is float and type(value) in (int, float):
        return float(value)
    if type(value) is not hint:
        raise TypeError(f"{hint.__name__} expected, {type(value).__name__} found")
    return value
