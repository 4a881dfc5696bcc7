"""The user's settings: each declared once with its default and its check, kept as one JSON file.

Main thread only.  Keys that this version does not know survive a load and a save, so that going
back to an older Grove loses nothing.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

T = TypeVar("T")
Check = Callable[[object], bool]


class HasSettingsFile(Protocol):
    """What `Settings.load` needs of a profile."""

    @property
    def settings_file(self) -> Path: ...


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _one_of(*choices: str) -> Check:
    return lambda value: isinstance(value, str) and value in choices


def _whole(low: int, high: int) -> Check:
    def check(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return check


def _number(low: float, high: float) -> Check:
    def check(value: object) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]  # `number` narrows it, mypy cannot follow

    return check


class Setting(Generic[T]):
    """One setting: an attribute of `Settings` that reads its default where the file has no valid
    value, and refuses (ValueError) to be given an invalid one."""

    def __init__(self, default: T, check: Check) -> None:
        assert check(default)
        self.default = default
        self.check = check
        self.key = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = name

    @overload
    def __get__(self, settings: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, settings: Settings, owner: type) -> T: ...
    def __get__(self, settings: Settings | None, owner: type) -> T | Setting[T]:
        if settings is None:
            return self
        value = settings.raw(self.key, self.default)
        # Copied, so that changing what was read never changes the settings silently.
        return copy.deepcopy(value if self.check(value) else self.default)  # type: ignore[return-value]  # the check proved the type

    def __set__(self, settings: Settings, value: T) -> None:
        if not self.check(value):
            raise ValueError(f"{value!r} is no value for the setting {self.key}")
        settings.put(self.key, copy.deepcopy(value))


class Settings:
    """All settings of one profile.  Assigning an attribute changes it; `save()` writes the file.

    Watchers are called with the key after each change that made a difference.
    """

    weights_path = Setting("", _is_text)
    """Last used weights file, loaded again at the next start; empty when none was chosen."""
    context_length = Setting(0, _whole(0, 10_000_000))
    """Tokens; 0 = chosen automatically."""
    threads = Setting(0, _whole(0, 1024))
    gpu_layers = Setting(-1, _whole(-1, 100_000))
    kv_type = Setting("auto", _one_of("auto", "f16", "q8_0"))
    """Numbers of the KV cache; "auto": f16, or q8_0 where that would need a shorter context."""
    flash_attention = Setting("auto", _one_of("auto", "on", "off"))
    preset = Setting("balanced", _is_text)
    presets: Setting[dict[str, Any]] = Setting({}, _is_object)
    """The user's own presets: name -> the fields of `inference.sampling.Sampling`."""
    templates: Setting[dict[str, Any]] = Setting({}, _is_object)
    """Prompt template chosen for a weights file: file name -> family name or Jinja source."""
    language = Setting("auto", _one_of("auto", "en", "ko"))
    theme = Setting("auto", _one_of("auto", "light", "dark"))
    text_scale: Setting[float] = Setting(1.0, _number(0.5, 4.0))
    offline = Setting(False, _is_flag)
    window: Setting[dict[str, Any]] = Setting({}, _is_object)
    """The window's own state; opaque here."""
    drafts: Setting[int] = Setting(3, _whole(1, 8))
    """How many drafts were asked for last: the number of "Ask again ×3"."""
    send_drafts: Setting[int] = Setting(1, _whole(1, 8))
    """How many drafts answer a message that is sent."""
    reading_speeds: Setting[dict[str, Any]] = Setting({}, _is_object)
    """How fast weights read here, tokens a second, as measured: see `session.foretelling`."""
    read_ahead = Setting("plugged_in", _one_of("plugged_in", "always", "never"))
    """Whether the engine reads what is being typed before it is sent."""
    recent_weights: Setting[list[Any]] = Setting([], lambda value: isinstance(value, list))
    """Paths of weights files used before, newest first."""
    weights_used: Setting[dict[str, Any]] = Setting({}, _is_object)
    """When a weights file was loaded last: path -> ms since 1970."""
    weights_own: Setting[dict[str, Any]] = Setting({}, _is_object)
    """Where a weights file differs from the settings of all: file name -> {key: value}."""

    def __init__(
        self, file: Path | None = None, values: Mapping[str, object] | None = None
    ) -> None:
        self.file = file
        self.notice = ""
        """One sentence when the settings file could not be read and was set aside, else empty."""
        self._values: dict[str, object] = dict(values or {})
        self._overrides: dict[str, object] = {}
        self._watchers: list[Callable[[str], None]] = []

    @classmethod
    def load(cls, profile: HasSettingsFile) -> Settings:
        """Read the profile's settings; a missing file gives defaults.

        A damaged file is renamed (never deleted), defaults are used and `notice` says so.
        """
        file = profile.settings_file
        settings = cls(file)
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return settings
        except (OSError, ValueError, RecursionError) as error:
            settings.notice = _set_aside(file, unreadable=isinstance(error, OSError))
            return settings
        if not isinstance(values, dict):
            settings.notice = _set_aside(file, unreadable=False)
            return settings
        settings._values = values
        return settings

    @classmethod
    def declared(cls) -> tuple[str, ...]:
        """The keys that this version knows."""
        return tuple(name for name, value in vars(cls).items() if isinstance(value, Setting))

    def raw(self, key: str, default: object = None) -> object:
        """The unchecked value of a key, also of one that this version does not declare."""
        if key in self._overrides:
            return self._overrides[key]
        return self._values.get(key, default)

    def override(self, key: str, value: object) -> None:
        """A value for this run only: it is never written, and a later change by `put` ends it."""
        self._overrides[key] = value

    def put(self, key: str, value: object) -> None:
        """Set a key and tell the watchers; assigning an attribute ends here."""
        self._overrides.pop(key, None)
        if key in self._values and self._values[key] == value:
            return
        self._values[key] = value
        for watcher in list(self._watchers):
            watcher(key)

    def add_watcher(self, watcher: Callable[[str], None]) -> None:
        """Call `watcher(key)` after each change."""
        self._watchers.append(watcher)

    def remove_watcher(self, watcher: Callable[[str], None]) -> None:
        """Stop calling it."""
        self._watchers.remove(watcher)

    def save(self) -> None:
        """Write the file so that a crash leaves either the old or the new one whole.

        Raises OSError (disk full, no permission): the old file is then untouched.
        """
        if self.file is None:
            return
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps(self._values, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        import tempfile  # here: it brings random, shutil and the compressors into every start

        handle, name = tempfile.mkstemp(prefix=".settings-", dir=self.file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            Path(name).replace(self.file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise


def _set_aside(file: Path, *, unreadable: bool) -> str:
    if unreadable:
        return f"The settings could not be read, so Grove uses its defaults; check {file.name}."
    for n in range(1, 1000):
        aside = file.with_name(f"{file.stem}.damaged-{n}{file.suffix}")
        if not aside.exists():
            break
    try:
        file.replace(aside)
    except OSError:
        return f"The settings file {file.name} is damaged, so Grove uses its defaults."
    return (
        f"The settings file was damaged and is kept as {aside.name}; Grove uses its defaults now."
    )
