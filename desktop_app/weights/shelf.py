"""The shelf: every weights file on this computer that Grove can use, where it lies.

Grove's own folder, single files and watched folders of the user, and what other programs hold.
Nothing is copied.  What was seen once stays listed while its drive is away.  Settings belong to
the file's content, so they survive renaming and moving.

All state is in ``<profile>/shelf.json``.  Thread-safe; `refresh` reads disks and may be slow, so
call it from a worker; everything else answers from memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from desktop_app.errors import KnownError

from .gguf import Header, first_part, part_paths, read_header
from .places import Found, System, foreign_files, gguf_files
from .profile_file import disk_error, load_json, remove_empty_folders, save_json

_EDGE_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the shelf."""

    path: Path
    # "own", "file", "folder", "lm-studio", "ollama", "gpt4all", "jan", "llama.cpp", "hub-cache"
    source: str
    title: str
    size_bytes: int
    # "ready"; "away": its drive or folder is not there; "damaged"; "incomplete": parts missing;
    # "other": a vocabulary, projector or adapter, nothing to chat with
    state: str
    # For a state other than "ready": KnownError code and sentence.
    problem: str = ""
    problem_sentence: str = ""
    architecture: str = ""
    quantisation: str = ""
    licence: str = ""
    size_label: str = ""
    context_length: int = 0
    parameter_count: int = 0
    # Identifies the content; settings hang on it.
    fingerprint: str = ""
    # What the file should hash to, where its source tells; "" otherwise.
    sha256: str = ""
    modified_ns: int = 0

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


class Shelf:
    """See the module.  `profile` is Grove's folder; `system` tells where other programs are."""

    def __init__(self, profile: Path, *, system: System | None = None) -> None:
        self.own_folder = profile / "weights"
        self._file = profile / "shelf.json"
        self._system = system or System.here()
        self._lock = threading.RLock()
        self._scan = threading.Lock()
        data = load_json(self._file, {})
        data = data if isinstance(data, dict) else {}
        self._folders = [Path(text) for text in _texts(data.get("folders"))]
        self._files = [Path(text) for text in _texts(data.get("files"))]
        self._hidden = set(_texts(data.get("hidden")))
        # Where the drives of the watched folders were mounted when these were added.
        self._mounts = {key: str(value) for key, value in _mapping(data.get("mounts")).items()}
        self._digests = _mapping(data.get("digests"))
        self._settings = _mapping(data.get("settings"))
        self._entries = _entries(data.get("entries"))
        # Keys of settings and digests that were removed in this run.
        self._dropped: set[str] = set()
        self._listeners: list[Callable[[], None]] = []

    # --- reading

    def entries(self) -> list[Entry]:
        """What the last refresh (of any run) found, by title."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda e: (e.title.lower(), str(e.path)))

    def find(self, name: str) -> Entry:
        """By path, file name or title, or by a part that only one entry has.

        Raises KnownError ``weights-unknown``.
        """
        wanted = name.casefold()
        partly = []
        for entry in self.entries():
            names = (str(entry.path), entry.path.name, entry.path.stem, entry.title)
            if wanted in (text.casefold() for text in names):
                return entry
            if any(wanted in text.casefold() for text in (entry.path.name, entry.title)):
                partly.append(entry)
        if len(partly) == 1:
            return partly[0]
        raise KnownError(
            "weights-unknown",
            f"No weights named “{name}” are on this computer. See the list, or add the file.",
        )

    @property
    def folders(self) -> list[Path]:
        with self._lock:
            return list(self._folders)

    def settings(self, entry: Entry) -> dict[str, Any]:
        """The settings kept for this content (threads, context length, template …)."""
        with self._lock:
            kept = self._settings.get(entry.fingerprint or str(entry.path), {})
            return dict(kept) if isinstance(kept, dict) else {}

    # --- changing

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Called after each change, on the thread that made it."""
        self._listeners.append(listener)

    def set_settings(self, entry: Entry, settings: Mapping[str, Any]) -> None:
        """Replace the settings of this content; an empty mapping forgets them."""
        with self._lock:
            key = entry.fingerprint or str(entry.path)
            if settings:
                self._settings[key] = dict(settings)
                self._dropped.discard(key)
            else:
                self._settings.pop(key, None)
                self._dropped.add(key)
            self._save()

    def add_file(self, path: Path) -> Entry:
        """List a file where it lies.  Raises what `read_header` raises, and ``weights-other``."""
        path = first_part(path.expanduser().resolve())
        entry = self._look(Found(path, "file"), None)
        if entry.problem:
            raise KnownError(entry.problem, entry.problem_sentence)
        with self._lock:
            if path not in self._files and not path.is_relative_to(self.own_folder):
                self._files.append(path)
            self._hidden.discard(str(path))
            self._entries[str(path)] = entry
            self._save()
        self._tell()
        return entry

    def add_folder(self, folder: Path) -> list[Entry]:
        """Watch a folder; its files are listed at once and at each refresh."""
        folder = folder.expanduser().resolve()
        if not folder.is_dir():
            raise KnownError(
                "folder-missing", f"The folder {folder.name} is not there. Choose another folder."
            )
        with self._lock:
            if folder not in self._folders:
                self._folders.append(folder)
            # Adding it again says that it lies here now, whatever drive was there before.
            self._mounts[str(folder)] = mount_of(folder)
            self._save()
        return [entry for entry in self.refresh() if entry.path.is_relative_to(folder)]

    def remove_folder(self, folder: Path) -> None:
        """Stop watching; the files stay where they are."""
        with self._lock:
            self._folders = [known for known in self._folders if known != folder]
            for key, entry in list(self._entries.items()):
                if entry.source == "folder" and entry.path.is_relative_to(folder):
                    del self._entries[key]
            self._save()
        self._tell()

    def forget(self, entry: Entry) -> None:
        """Take a file off the list without touching it."""
        with self._lock:
            self._files = [known for known in self._files if known != entry.path]
            if entry.source != "file":
                self._hidden.add(str(entry.path))
            self._entries.pop(str(entry.path), None)
            self._save()
        self._tell()

    def remove(self, entry: Entry) -> None:
        """Delete the file (all its parts) from Grove's own folder; forget any other file."""
        if not entry.path.is_relative_to(self.own_folder):
            self.forget(entry)
            return
        try:
            for path in part_paths(entry.path):
                path.unlink(missing_ok=True)
            remove_empty_folders(entry.path.parent, self.own_folder)
        except OSError as error:
            raise disk_error(error, entry.path) from error
        with self._lock:
            self._entries.pop(str(entry.path), None)
            self._digests.pop(str(entry.path), None)
            self._dropped.add(str(entry.path))
            self._save()
        self._tell()

    def arrived(self, path: Path, sha256: str) -> Entry:
        """A download has put a file into the own folder; `sha256` "" where nobody told its hash."""
        with self._lock:
            if sha256:
                self._digests[str(path)] = sha256
                self._dropped.discard(str(path))
            else:  # what stood here before had another one
                self._digests.pop(str(path), None)
                self._dropped.add(str(path))
        entry = self._look(Found(first_part(path), "own", sha256=sha256), None)
        with self._lock:
            self._entries[str(entry.path)] = entry
            self._save()
        self._tell()
        return entry

    def verify(
        self,
        entry: Entry,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        """Hash the whole file and check its header; returns the SHA-256 of its first part.

        Raises KnownError ``weights-hash`` when a known hash does not match.
        """
        read_header(entry.path)
        paths = part_paths(entry.path)
        total = sum(path.stat().st_size for path in paths)
        done = 0
        first = ""
        for path in paths:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    if cancelled is not None and cancelled():
                        raise KnownError("cancelled", "Checking was cancelled.")
                    digest.update(piece)
                    done += len(piece)
                    if progress is not None:
                        progress(done, total)
            expected = self._digests.get(str(path)) or (entry.sha256 if path == entry.path else "")
            if expected and digest.hexdigest() != expected:
                raise KnownError(
                    "weights-hash",
                    f"The file {path.name} is not what its maker published. Download it again.",
                    detail=f"{digest.hexdigest()} instead of {expected}",
                )
            first = first or digest.hexdigest()
        return first

    def refresh(self) -> list[Entry]:
        """Look at every place again and return the new list.  Slow disks make this slow."""
        with self._scan:
            with self._lock:
                before = dict(self._entries)
            found = self._found()
            fresh: dict[str, Entry] = {}
            seen: set[Path] = set()
            for item in found:
                try:
                    real = item.path.resolve()
                except (OSError, RuntimeError):
                    continue
                if real in seen or str(item.path) in self._hidden:
                    continue
                seen.add(real)
                fresh[str(item.path)] = self._look(item, before.get(str(item.path)))
            with self._lock:
                for key, entry in self._entries.items():
                    if key not in fresh and key not in self._hidden and self._is_away(entry):
                        fresh[key] = _away(entry)
                changed = fresh != self._entries
                self._entries = fresh
                if changed:
                    self._save()
        if changed:
            self._tell()
        return self.entries()

    # --- inside

    def _found(self) -> list[Found]:
        with self._lock:
            files, folders = list(self._files), list(self._folders)
        found = [Found(path, "own") for path in gguf_files(self.own_folder)]
        found += [Found(path, "file") for path in files if path.exists()]
        for folder in folders:
            found += [Found(path, "folder") for path in gguf_files(folder)]
        return found + list(foreign_files(self._system))

    def _is_away(self, entry: Entry) -> bool:
        """Gone with its drive or folder, not deleted: a file deleted from a folder is dropped."""
        if entry.path.exists() or entry.path.is_relative_to(self.own_folder):
            return False
        if entry.source == "file":
            return entry.path in self._files
        if entry.source == "folder":
            return any(
                entry.path.is_relative_to(folder)
                and (not folder.is_dir() or self._is_unplugged(folder))
                for folder in self._folders
            )
        return False

    def _is_unplugged(self, folder: Path) -> bool:
        """Its drive is away while the empty folder where it is mounted stays."""
        mount = self._mounts.get(str(folder), "")
        return bool(mount) and not os.path.ismount(mount)

    def _look(self, found: Found, before: Entry | None) -> Entry:
        """The entry of one file; its header is read only if it changed since `before`."""
        try:
            stat = found.path.stat()
        except OSError:
            return _away(before) if before else Entry(found.path, found.source, "", 0, "away")
        unchanged = before is not None and (
            (before.modified_ns, before.source) == (stat.st_mtime_ns, found.source)
            and before.state in ("ready", "damaged", "other")
            and len(part_paths(found.path)) == 1
            and before.size_bytes == stat.st_size
        )
        if unchanged and before is not None:
            return before
        sha256 = found.sha256 or str(self._digests.get(str(found.path), ""))
        bare = Entry(
            found.path,
            found.source,
            found.title or _title_of_name(found.path),
            stat.st_size,
            "ready",
            sha256=sha256,
            modified_ns=stat.st_mtime_ns,
        )
        try:
            header = read_header(found.path)
            if header.kind != "weights":
                raise KnownError(
                    "weights-other",
                    f"This file is not a language model by itself ({header.kind}). Choose the "
                    "weights file that it belongs to.",
                )
        except KnownError as error:
            state = {"weights-shard-missing": "incomplete", "weights-other": "other"}
            return replace(
                bare,
                state=state.get(error.code, "damaged"),
                problem=error.code,
                problem_sentence=error.sentence,
            )
        return _filled(bare, header, found)

    def _save(self) -> None:
        # A command may have written beside a window: what only the file knows is kept.
        data = load_json(self._file, {})
        data = data if isinstance(data, dict) else {}
        for kept, name in ((self._digests, "digests"), (self._settings, "settings")):
            for key, value in _mapping(data.get(name)).items():
                if key not in self._dropped:
                    kept.setdefault(key, value)
        save_json(
            self._file,
            {
                "version": 1,
                "folders": [str(path) for path in self._folders],
                "files": [str(path) for path in self._files],
                "hidden": sorted(self._hidden),
                "mounts": {
                    key: mount for key, mount in self._mounts.items() if Path(key) in self._folders
                },
                "digests": self._digests,
                "settings": self._settings,
                "entries": [entry.as_dict() for entry in self._entries.values()],
            },
        )

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()


def _filled(bare: Entry, header: Header, found: Found) -> Entry:
    return replace(
        bare,
        title=found.title or header.title or bare.title,
        size_bytes=header.file_bytes,
        architecture=header.architecture,
        quantisation=header.quantisation,
        licence=header.licence,
        size_label=header.size_label,
        context_length=header.context_length,
        parameter_count=header.parameter_count,
        fingerprint=fingerprint(found.path),
    )


def mount_of(path: Path) -> str:
    """The place where the drive of an existing `path` is mounted."""
    return next((str(folder) for folder in (path, *path.parents) if os.path.ismount(folder)), "")


def fingerprint(path: Path) -> str:
    """A hash of the size and both ends: tells files apart without reading gigabytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, 2)
        digest.update(str(size).encode())
        for offset in (0, max(0, size - _EDGE_BYTES)):
            file.seek(offset)
            digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()[:32]


def _title_of_name(path: Path) -> str:
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", path.stem)
    return " ".join(re.sub(r"[-_]+", " ", stem).split())


def _away(entry: Entry) -> Entry:
    return replace(
        entry,
        state="away",
        problem="weights-away",
        problem_sentence="The drive or folder with these weights is not connected.",
    )


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _mapping(value: object) -> dict[str, Any]:
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}


def _entries(value: object) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for item in value if isinstance(value, list) else []:
        # An entry of another version of Grove is found again by the next refresh.
        with contextlib.suppress(TypeError, AttributeError, KeyError):
            entry = Entry(**{**item, "path": Path(item["path"])})
            found[str(entry.path)] = entry
    return found
