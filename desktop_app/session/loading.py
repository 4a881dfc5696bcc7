"""Loading weights: one file at a time, checked before the engine sees it, remembered after."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from desktop_app import log
from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine, Job
from desktop_app.inference.protocol import (
    Event,
    Failed,
    Loaded,
    LoadedWeights,
    LoadProgress,
    WeightsSpec,
)
from desktop_app.paths import starter_weights
from desktop_app.session.listening import Listeners, Post, on_main
from desktop_app.settings import Settings

if TYPE_CHECKING:
    # Reading and judging files needs modules that a start of the window should not wait for; they
    # are imported where a file is looked at.
    from desktop_app.weights.fit import Device
    from desktop_app.weights.gguf import Header

_log = log.logger("session")


@dataclass(eq=False, slots=True)
class _Load:
    """One attempt."""

    path: Path
    future: Future[LoadedWeights] = field(default_factory=Future)
    job: Job[LoadedWeights] | None = None


class Loading:
    """Which weights there are in memory, or soon.  Main thread only."""

    def __init__(
        self, engine: Engine, settings: Settings, post: Post, tell: Listeners, speed_file: Path
    ) -> None:
        self.on_ready: Callable[[], None] | None = None
        self.on_failed: Callable[[KnownError], None] | None = None
        self._engine = engine
        self._settings = settings
        self._post = post
        self._tell = tell.tell
        self._speed_file = speed_file
        self._load: _Load | None = None
        self._header: Header | None = None
        self._last: Path | None = None  # loaded in this run
        self.fitting_context = 0
        """Tokens of context that would fit, when the last attempt failed for want of memory; 0:
        nothing is known."""
        # Reading a header is quick, but the file may lie on a sleeping drive.
        self._files = ThreadPoolExecutor(1, thread_name_prefix="grove-files")

    @property
    def is_loading(self) -> bool:
        """Whether an attempt is under way."""
        return self._load is not None

    @property
    def author(self) -> str:
        """The display name of the weights that will write next; empty without any."""
        if self._load is not None:
            return self._load.path.stem
        return self._engine.loaded.name if self._engine.loaded is not None else ""

    @property
    def template(self) -> str:
        """The prompt template that the user chose for the loaded file, else "auto"."""
        loaded = self._engine.loaded
        if loaded is None:
            return "auto"
        chosen = self._settings.templates.get(Path(loaded.path).name)
        return chosen if isinstance(chosen, str) and chosen else "auto"

    def default(self) -> Path | None:
        """The file used last if it still is there, else the one that came with Grove, or None."""
        last = self._settings.weights_path
        if last and Path(last).is_file():
            return Path(last)
        return starter_weights()

    def need(self) -> None:
        """Start loading where nothing is; KnownError("no-weights") where there is no file."""
        if self._engine.loaded is not None or self._load is not None:
            return
        # After a crash the same weights again, and a word if they are gone: never quietly others.
        path = self._last or self.default()
        if path is None:
            raise KnownError(
                "no-weights",
                "No weights are chosen yet. Choose a GGUF file or download one, then send again.",
            )
        self.start(path)

    def start(self, path: Path | str) -> Future[LoadedWeights]:
        """Check a file and load it; an attempt under way is given up for it."""
        from desktop_app.weights.gguf import first_part

        self.cancel()
        self.fitting_context = 0
        load = self._load = _Load(first_part(Path(path).expanduser().absolute()))
        spec, devices = self._spec(load.path), self._devices()
        checked = on_main(self._post, self._files.submit(check_file, spec, devices), _same)
        checked.add_done_callback(lambda future: self._checked(load, future))
        self._tell("loading", 0.0)
        return load.future

    def cancel(self) -> None:
        """Give up the attempt under way, if any; its future is cancelled."""
        load, self._load = self._load, None
        if load is None:
            return
        if load.job is not None:
            load.job.cancel()
        load.future.cancel()

    def close(self) -> None:
        """Give up, and end the thread that reads headers."""
        self.cancel()
        self._files.shutdown(wait=True, cancel_futures=True)

    def record_speed(self, tokens_per_s: float, context_used: int) -> None:
        """Remember how fast the loaded weights wrote, so that others can be judged before they are
        downloaded.  Only what ran on the CPU tells anything about others."""
        header, loaded = self._header, self._engine.loaded
        if header is None or loaded is None or loaded.gpu_layers != 0 or tokens_per_s <= 0:
            return

        def record() -> None:
            from desktop_app.weights.fit import SpeedBook

            # A guess for later is not worth a word to the user when the disk is full.
            with contextlib.suppress(KnownError, OSError):
                book = SpeedBook.load(self._speed_file)
                book.record(header, tokens_per_s, context_used=context_used)

        self._files.submit(record)

    def _checked(self, load: _Load, checked: Future[Header]) -> None:
        if self._load is not load:
            return
        error = checked.exception()
        if error is not None:
            self._failed(load, error)
            return
        self._header = checked.result()
        load.job = self._engine.load(
            self._spec(load.path), lambda event: self._post(lambda: self._event(load, event))
        )

    def _spec(self, path: Path) -> WeightsSpec:
        return WeightsSpec(
            str(path),
            context_length=self._of(path, "context_length"),
            threads=self._of(path, "threads"),
            gpu_layers=self._of(path, "gpu_layers"),
            kv_type=self._of(path, "kv_type"),
            flash_attention=self._of(path, "flash_attention"),
        )

    def _of(self, path: Path, key: str) -> Any:
        """The file's own setting where it has a valid one, else that of all."""
        own = self._settings.weights_own.get(path.name)
        value = own.get(key) if isinstance(own, dict) else None
        declared = getattr(type(self._settings), key)
        return value if declared.check(value) else getattr(self._settings, key)

    def _devices(self) -> tuple[Device, ...]:
        hello = self._engine.hello
        if hello is None:
            return ()
        from desktop_app.weights.fit import Device

        return tuple(Device(d.name, d.free_bytes) for d in hello.devices if d.kind != "cpu")

    def _event(self, load: _Load, event: Event) -> None:
        if self._load is not load:
            return
        match event:
            case LoadProgress(fraction=fraction):
                self._tell("loading", fraction)
            case Loaded(info=info):
                self._load = None
                _log.info("weights loaded: %s %s", info.architecture, info.quantisation)
                self._last = load.path
                self._remember(load.path)
                if load.future.set_running_or_notify_cancel():
                    load.future.set_result(info)
                self._tell("loaded", info)
                if self.on_ready is not None:
                    self.on_ready()
            case Failed() as failed:
                self._failed(load, failed.error)
            case _:
                pass

    def _failed(self, load: _Load, error: BaseException) -> None:
        self._load = None
        if load.future.set_running_or_notify_cancel():
            load.future.set_exception(error)
        if not isinstance(error, KnownError):
            raise error
        _log.info("weights not loaded: %s", error.code)
        self.fitting_context = context_that_fits(error)
        self._tell("engine_failed", error)
        if self.on_failed is not None:
            self.on_failed(error)

    def _remember(self, path: Path) -> None:
        name = str(path)
        others = [other for other in self._settings.recent_weights if other != name]
        self._settings.weights_path = name
        self._settings.recent_weights = [name, *others][:20]
        self.keep_settings()

    def keep_settings(self) -> None:
        """Write the settings; a disk that refuses is told by `storage_failed`."""
        try:
            self._settings.save()
        except OSError as error:
            sentence = "The settings could not be saved. Check the disk's free space."
            self._tell(
                "storage_failed", KnownError("settings-unwritable", sentence, detail=str(error))
            )


def context_that_fits(error: KnownError) -> int:
    """The length in tokens that the engine offers in place of one that is too long; 0: none."""
    found = re.search(r"tokens that fit: (\d+)$", error.detail)
    return int(found[1]) if found and error.code == "context-too-long" else 0


def check_file(spec: WeightsSpec, devices: tuple[Device, ...] = ()) -> Header:
    """The header of a file, or by KnownError why it cannot run here, before llama.cpp touches it.

    Any thread.  Weights are refused only where they can never fit: what is too
    big just now may still run, slowly.
    """
    from desktop_app.weights.fit import Machine, Plan, predict
    from desktop_app.weights.gguf import read_header

    header = read_header(Path(spec.path))
    if header.kind != "weights":
        raise KnownError(
            "weights-other",
            f"This file is not a language model by itself ({header.kind}). Choose the weights file "
            "that it belongs to.",
        )
    machine = Machine.here(devices=devices)
    plan = Plan(
        context_length=spec.context_length, kv_type=spec.kv_type, gpu_layers=spec.gpu_layers
    )
    fit = predict(header, machine, plan=plan)
    if fit.verdict == "too-big" and fit.memory_bytes > machine.total_bytes:
        raise KnownError("weights-too-big", fit.sentence)
    return header


def _same(header: Header) -> Header:
    return header
