"""The queue of downloads: order, pause, resume, cancel; it survives restarts.

One worker thread fetches one download at a time; a second thread tells listeners four times a
second how far it is and writes the queue to disk.  State is in ``<profile>/downloads.json``; bytes
are in the ``.part`` files.  After a restart nothing connects by itself: what was running waits as
paused.

All methods may be called from any thread and return at once.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from desktop_app.errors import KnownError

from .hub import Hub, Repository
from .hub_files import HubFile, Quantisation
from .part_file import PartFile
from .profile_file import load_json, remove_empty_folders, save_json
from .shelf import Shelf
from .transfer import (
    Patience,
    Progress,
    Result,
    SpeedLimit,
    Transfer,
    check_space,
    discard,
)

_TICK_S: Final = 0.25
# The speed shown is that of the last seconds.
_SPEED_WINDOW_S: Final = 4.0
ACTIVE: Final = ("running", "waiting", "checking")
_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10))]
)


@dataclass(frozen=True, slots=True)
class Download:
    """One line of the queue, as it is now."""

    id: int
    title: str
    repository: str
    revision: str
    label: str
    files: tuple[HubFile, ...]
    # "queued", "running", "waiting" (for the network), "checking", "paused", "done", "failed"
    state: str = "queued"
    done_bytes: int = 0
    total_bytes: int = 0
    speed_bytes_per_s: float = 0.0
    # Seconds until the end; 0 while unknown.
    left_s: float = 0.0
    error: str = ""
    error_sentence: str = ""
    finished_files: int = 0
    # Where the first file lies or will lie.
    path: str = ""

    @property
    def fraction(self) -> float:
        return self.done_bytes / self.total_bytes if self.total_bytes else 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class _Running:
    """The download in the worker's hands."""

    id: int
    stop: threading.Event = field(default_factory=threading.Event)
    # What `stop` means: "pause", "cancel" or "close".
    reason: str = "close"
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))


class Downloads:
    """See the module.  `state_file` None keeps the queue in memory only."""

    def __init__(
        self,
        hub: Hub,
        shelf: Shelf,
        state_file: Path | None,
        *,
        limit: SpeedLimit | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._hub = hub
        self._shelf = shelf
        self._state_file = state_file
        self.limit = limit or SpeedLimit()
        self._patience = patience
        self._lock = threading.Condition()
        self._listeners: list[Callable[[tuple[Download, ...]], None]] = []
        self._running: _Running | None = None
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._dirty = False
        self._rubbish: list[Download] = []
        self._items = self._load()
        self._ids = itertools.count(max((item.id for item in self._items), default=0) + 1)

    # --- the queue

    def snapshot(self) -> tuple[Download, ...]:
        """All lines in order."""
        with self._lock:
            return tuple(self._items)

    def add_listener(self, listener: Callable[[tuple[Download, ...]], None]) -> None:
        """Called with `snapshot()` at each change and four times a second while one runs.

        On this module's threads: hop to your own.
        """
        self._listeners.append(listener)

    def add(self, repository: Repository, quantisation: Quantisation) -> int:
        """Put a download at the end and start it when its turn comes; returns its id.

        The same download is not added twice: the one in the queue goes on.
        """
        if quantisation.is_incomplete:
            raise KnownError(
                "hub-incomplete",
                f"Parts of {quantisation.name} are missing on the hub. Choose another file.",
            )
        with self._lock:
            for item in self._items:
                same = (item.repository, item.files) == (repository.id, quantisation.files)
                if same and item.state != "done":
                    self._set(item.id, state="queued", error="", error_sentence="")
                    known = item.id
                    break
            else:
                name = repository.id.rpartition("/")[2]
                item = Download(
                    id=next(self._ids),
                    title=re.sub(r"-gguf$", "", name, flags=re.I),
                    repository=repository.id,
                    revision=repository.commit,
                    label=quantisation.label,
                    files=quantisation.files,
                    total_bytes=quantisation.size_bytes,
                    path=str(self.target(repository.id, quantisation.files[0])),
                )
                self._items.append(item)
                known = item.id
            self._save()
        self._tell()
        return known

    def pause(self, download_id: int) -> None:
        """Stop it; what has arrived is kept."""
        self._interrupt(download_id, "pause")

    def resume(self, download_id: int) -> None:
        """Queue a paused or failed download again, where it stands in the order."""
        with self._lock:
            item = self._find(download_id)
            if item.state in ("paused", "failed"):
                self._set(download_id, state="queued", error="", error_sentence="")
                self._save()
        self._tell()

    def cancel(self, download_id: int) -> None:
        """Stop it and remove its line and what has arrived of it.  Finished files stay."""
        self._interrupt(download_id, "cancel")

    def move(self, download_id: int, index: int) -> None:
        """Put a line at another place of the order."""
        with self._lock:
            item = self._find(download_id)
            self._items.remove(item)
            self._items.insert(max(0, min(index, len(self._items))), item)
            self._save()
        self._tell()

    def clear_finished(self) -> None:
        with self._lock:
            self._items = [item for item in self._items if item.state != "done"]
            self._save()
        self._tell()

    def wait(self, download_id: int, timeout_s: float | None = None) -> Download:
        """Block until it is done, failed, paused or gone; for commands without a window."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            while True:
                found = [item for item in self._items if item.id == download_id]
                if not found:
                    raise KnownError("cancelled", "The download was cancelled.")
                if found[0].state in ("done", "failed", "paused"):
                    return found[0]
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return found[0]
                # Wakes now and then so that Ctrl+C is seen.
                self._lock.wait(0.2 if left is None else min(left, 0.2))

    def close(self) -> None:
        """Stop the worker and wait for it; what runs goes on after the next start."""
        with self._lock:
            self._closed = True
            if self._running is not None:
                self._running.stop.set()
            self._lock.notify_all()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()
        self._write_out()

    def target(self, repository: str, file: HubFile) -> Path:
        """Where a file of a repository is put: below the own folder, as on the hub."""
        parts = [*repository.split("/"), *PurePosixPath(file.path).parts]
        return self._shelf.own_folder.joinpath(*(safe_name(part) for part in parts))

    # --- inside

    def _interrupt(self, download_id: int, reason: str) -> None:
        with self._lock:
            item = self._find(download_id)
            if self._running is not None and self._running.id == download_id:
                self._running.reason = reason
                self._running.stop.set()
            elif reason == "pause" and item.state == "queued":
                self._set(download_id, state="paused")
            elif reason == "cancel":
                self._items.remove(item)
                self._rubbish.append(item)
            self._save()
            self._lock.notify_all()
        self._tell()

    def _discard(self, item: Download) -> None:
        for file in item.files:
            target = self.target(item.repository, file)
            discard(target)
            remove_empty_folders(target.parent, self._shelf.own_folder)

    def _find(self, download_id: int) -> Download:
        for item in self._items:
            if item.id == download_id:
                return item
        raise KnownError("download-unknown", "This download is not in the list any more.")

    def _set(self, download_id: int, **changes: Any) -> Download:
        with self._lock:
            for index, item in enumerate(self._items):
                if item.id == download_id:
                    self._items[index] = replace(item, **changes)
                    return self._items[index]
        raise KnownError("download-unknown", "This download is not in the list any more.")

    def _start_threads(self) -> None:
        if self._threads or self._closed:
            return
        for name, work in (("grove-downloads", self._work), ("grove-progress", self._tick)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        """The worker: one download after the other."""
        while True:
            with self._lock:
                item = next((item for item in self._items if item.state == "queued"), None)
                if self._closed:
                    return
                if item is None:
                    self._lock.wait()
                    continue
                self._running = running = _Running(item.id)
                self._set(item.id, state="running")
                self._save()
                self._lock.notify_all()  # the thread of the ticks waits for this
            self._tell()
            try:
                self._fetch(item, running)
                changes: dict[str, Any] = {"state": "done", "done_bytes": item.total_bytes}
            except KnownError as error:
                changes = self._after_error(error, running)
            except BaseException:
                # A bug: it goes on to the one hook for bugs, but the line must not look alive.
                with self._lock:
                    self._running = None
                    self._set(item.id, state="failed", error="bug", speed_bytes_per_s=0.0)
                raise
            if not changes:
                self._discard(
                    item
                )  # before the line goes, and without anybody waiting for the disk
            with self._lock:
                self._running = None
                if changes:
                    self._set(item.id, speed_bytes_per_s=0.0, left_s=0.0, **changes)
                else:
                    self._items = [other for other in self._items if other.id != item.id]
                self._save()
            self._tell()

    def _after_error(self, error: KnownError, running: _Running) -> dict[str, Any]:
        """What becomes of the line; nothing when it goes away."""
        if error.code == "cancelled":
            if running.reason == "cancel":
                return {}
            return {"state": "paused" if running.reason == "pause" else "queued"}
        return {"state": "failed", "error": error.code, "error_sentence": error.sentence}

    def _fetch(self, item: Download, running: _Running) -> None:
        subject = f"{item.repository} {item.label}"
        with self._hub.connections.action("download", subject, cancel=running.stop):
            # All parts or none: the last one of a set must not be the first to lack room.
            have = sum(self._have(item, file) for file in item.files)
            check_space(self._shelf.own_folder, max(0, item.total_bytes - have))
            before = 0
            for number, file in enumerate(item.files):
                target = self.target(item.repository, file)
                if number < item.finished_files and target.is_file():
                    before += file.size_bytes
                    continue
                note = functools.partial(self._note, running, before)
                try:
                    result = self._transfer(item.revision, item, file, note, running.stop)
                except KnownError as error:
                    # Some mirrors know only the newest commit; the hash tells whether it is right.
                    if error.code != "hub-missing" or item.revision == "main":
                        raise
                    result = self._transfer("main", item, file, note, running.stop)
                before += result.size_bytes
                self._set(item.id, finished_files=number + 1, done_bytes=before)
                with self._lock:
                    self._save()
                # Without the hub's word a hash proves nothing about what its maker published.
                self._shelf.arrived(result.path, result.sha256 if result.verified else "")

    def _transfer(
        self,
        revision: str,
        item: Download,
        file: HubFile,
        note: Callable[[Progress], None],
        stop: threading.Event,
    ) -> Result:
        transfer = Transfer(
            self._hub.connections,
            self._hub.wanted_at(item.repository, revision, file),
            self.target(item.repository, file),
            token=self._hub.token(),
            hub_origin=self._hub.origin,
            limit=self.limit,
            patience=self._patience,
        )
        return transfer.run(note, stop)

    def _note(self, running: _Running, base: int, progress: Progress) -> None:
        """Called by the transfer up to ten times a second; listeners hear of it at the tick."""
        states = {"waiting": "waiting", "checking": "checking"}
        with self._lock:
            done = base + progress.done_bytes
            if progress.phase == "downloading":
                running.samples.append((time.monotonic(), done))
            else:
                running.samples.clear()
            self._set(
                running.id,
                state=states.get(progress.phase, "running"),
                done_bytes=done,
                error=progress.reason,
            )

    def _tick(self) -> None:
        """Write the queue to disk when it changed; tell speed and time left while one runs."""
        while True:
            self._write_out()
            with self._lock:
                running = self._running
                if self._dirty or self._rubbish:
                    continue
                if self._closed:
                    return
                if running is None:
                    self._lock.wait(timeout=5.0)
                    continue
                speed = _speed(running.samples)
                item = self._find(running.id)
                left = (item.total_bytes - item.done_bytes) / speed if speed > 0 else 0.0
                self._set(running.id, speed_bytes_per_s=speed, left_s=max(0.0, left))
            self._tell()
            running.stop.wait(_TICK_S)
            if running.stop.is_set():
                time.sleep(_TICK_S)  # it ends now; do not spin until it has

    def _write_out(self) -> None:
        """Disk work that others asked for: outside of the lock, so that nobody waits for a disk."""
        with self._lock:
            items = [item.as_dict() for item in self._items] if self._dirty else None
            rubbish, self._rubbish, self._dirty = self._rubbish, [], False
        if items is not None and self._state_file is not None:
            # What could not be written now is written with the next change.
            with contextlib.suppress(KnownError):
                save_json(self._state_file, {"version": 1, "downloads": items})
        for item in rubbish:
            with contextlib.suppress(OSError):
                self._discard(item)

    def _tell(self) -> None:
        snapshot = self.snapshot()
        for listener in list(self._listeners):
            listener(snapshot)

    def _save(self) -> None:
        """Have the queue written soon.  Under the lock."""
        self._dirty = True
        self._start_threads()
        self._lock.notify_all()

    def _load(self) -> list[Download]:
        if self._state_file is None:
            return []
        data = load_json(self._state_file, {})
        found = []
        names = {item.name for item in fields(Download)}
        for entry in data.get("downloads", []) if isinstance(data, dict) else []:
            try:
                files = tuple(HubFile(**file) for file in entry["files"])
                kept = {key: value for key, value in entry.items() if key in names}
                item = Download(**{**kept, "files": files})
                done = sum(self._have(item, file) for file in files)
            except (TypeError, KeyError, AttributeError):
                continue  # a line of another version of Grove
            if item.state in (*ACTIVE, "queued"):
                item = replace(item, state="paused")
            found.append(
                replace(item, done_bytes=done, speed_bytes_per_s=0.0, left_s=0.0)
                if item.state != "done"
                else item
            )
        return found

    def _have(self, item: Download, file: HubFile) -> int:
        target = self.target(item.repository, file)
        part = PartFile(target)
        if part.exists():
            return part.path.stat().st_size
        return file.size_bytes if target.is_file() else 0


def _speed(samples: deque[tuple[float, int]]) -> float:
    """Bytes per second over the last seconds; falls to 0 while nothing comes."""
    now = time.monotonic()
    recent = [sample for sample in samples if now - sample[0] <= _SPEED_WINDOW_S]
    if len(recent) < 2:
        return 0.0
    return (recent[-1][1] - recent[0][1]) / max(0.05, now - recent[0][0])


def safe_name(part: str) -> str:
    """A path component of the hub as a file name that every system takes."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", part).rstrip(". ") or "_"
    if name.split(".")[0].lower() in _RESERVED:
        name = "_" + name
    return name[-200:]
