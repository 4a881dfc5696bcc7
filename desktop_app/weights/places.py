"""Where other programs keep weights files on this computer, so that nobody downloads twice.

Pure look-ups in folders; nothing is changed and nothing is copied.  A place that is missing or
unreadable simply yields nothing.  Any thread; may touch slow disks.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_DEPTH: Final = 6
MAX_FILES: Final = 5_000
_SHARD_BUT_FIRST: Final = re.compile(r"-(?!00001-)\d{5}-of-\d{5}\.gguf$", re.I)
_NOT_WEIGHTS: Final = re.compile(r"(^|[-_.])(mmproj|imatrix)", re.I)
_OLLAMA_MODEL_LAYER: Final = "application/vnd.ollama.image.model"


@dataclass(frozen=True, slots=True)
class Found:
    """A weights file somewhere.  `title` and `sha256` are "" where the place does not tell."""

    path: Path
    source: str
    title: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """What the places depend on; replaceable in tests."""

    home: Path
    environment: Mapping[str, str]
    platform: str = sys.platform

    @classmethod
    def here(cls) -> System:
        return cls(Path.home(), os.environ)

    def folder(self, variable: str, *fallback: str) -> Path:
        value = self.environment.get(variable, "")
        return Path(value) if value else self.home.joinpath(*fallback)

    @property
    def data(self) -> Path:
        """Where programs keep their data."""
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support"
        if self.platform == "win32":
            return self.folder("LOCALAPPDATA", "AppData", "Local")
        return self.folder("XDG_DATA_HOME", ".local", "share")

    @property
    def cache(self) -> Path:
        if self.platform == "darwin":
            return self.home / "Library" / "Caches"
        if self.platform == "win32":
            return self.folder("LOCALAPPDATA", "AppData", "Local")
        return self.folder("XDG_CACHE_HOME", ".cache")


def is_weights_name(name: str) -> bool:
    """Whether a file of this name is listed: a .gguf, but no projector, imatrix or later part."""
    return (
        name.lower().endswith(".gguf")
        and not name.startswith(".")
        and not _NOT_WEIGHTS.search(name)
        and not _SHARD_BUT_FIRST.search(name)
    )


def gguf_files(folder: Path, *, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Weights files below `folder`, at most MAX_FILES, in a stable order.  Never raises OSError."""
    left = MAX_FILES
    pending = [(folder, 0)]
    while pending and left > 0:
        current, level = pending.pop()
        try:
            with os.scandir(current) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            continue
        folders = []
        for entry in entries:
            try:
                # Linked folders are not followed: they make loops.  Linked files are.
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif is_weights_name(entry.name) and entry.is_file():
                    left -= 1
                    yield Path(entry.path)
            except OSError:
                continue
        if level < depth:
            pending += [(path, level + 1) for path in reversed(folders)]


def foreign_files(system: System) -> Iterator[Found]:
    """Everything that other programs hold."""
    for source, folders in _gguf_folders(system).items():
        for folder in folders:
            for path in gguf_files(folder):
                yield Found(path, source, sha256=_hub_digest(path) if source == "hub-cache" else "")
    for folder in _ollama_folders(system):
        yield from _ollama(folder)


def _gguf_folders(system: System) -> dict[str, list[Path]]:
    home = system.home
    hub_home = system.folder("HF_HOME", ".cache", "huggingface")
    folders = {
        "lm-studio": [home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"],
        "gpt4all": [system.data / "nomic.ai" / "GPT4All"],
        "jan": [
            system.data / "Jan" / "data" / "llamacpp" / "models",
            system.data / "Jan" / "data" / "models",
            home / "jan" / "models",
            system.folder("APPDATA", ".config") / "Jan" / "data",
        ],
        "llama.cpp": [system.folder("LLAMA_CACHE", *_relative(system.cache, home), "llama.cpp")],
        "hub-cache": [
            Path(system.environment.get("HF_HUB_CACHE") or hub_home / "hub"),
        ],
    }
    if chosen := _lm_studio_choice(home):
        folders["lm-studio"].insert(0, chosen)
    return folders


def _relative(path: Path, home: Path) -> tuple[str, ...]:
    return path.relative_to(home).parts if path.is_relative_to(home) else (str(path),)


def _lm_studio_choice(home: Path) -> Path | None:
    """The folder that the user of LM Studio chose, from its settings."""
    base = home / ".lmstudio"
    try:
        pointer = home / ".lmstudio-home-pointer"
        if pointer.is_file():
            base = Path(pointer.read_text(encoding="utf-8").strip())
        settings = json.loads((base / "settings.json").read_text(encoding="utf-8"))
        chosen = settings.get("downloadsFolder") if isinstance(settings, dict) else None
    except (OSError, ValueError, RecursionError):
        return base / "models" if base != home / ".lmstudio" else None
    return Path(chosen) if isinstance(chosen, str) and chosen else base / "models"


def _hub_digest(path: Path) -> str:
    """The hub's cache names large files by their SHA-256 and links to them."""
    try:
        name = path.resolve().name
    except (OSError, RuntimeError):
        return ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else ""


def _ollama_folders(system: System) -> list[Path]:
    folders = [system.folder("OLLAMA_MODELS", ".ollama", "models")]
    if system.platform not in ("win32", "darwin"):
        # The Linux installer runs Ollama as a user of its own.
        folders += [Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/models")]
    return folders


def _ollama(folder: Path) -> Iterator[Found]:
    """Names come from the manifests, files are blobs named by their SHA-256."""
    for manifest in _manifests(folder / "manifests"):
        try:
            if manifest.stat().st_size > 1 << 20:
                continue
            data = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        layers = data.get("layers") if isinstance(data, dict) else None
        for layer in layers if isinstance(layers, list) else []:
            if not isinstance(layer, dict) or layer.get("mediaType") != _OLLAMA_MODEL_LAYER:
                continue
            digest = str(layer.get("digest", ""))
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                continue
            blob = folder / "blobs" / digest.replace(":", "-")
            if blob.is_file():
                title = f"{manifest.parent.name}:{manifest.name}"
                yield Found(blob, "ollama", title, digest[7:])


def _manifests(folder: Path) -> Iterator[Path]:
    count = 0
    for root, folders, files in os.walk(folder):
        folders.sort()
        if len(Path(root).relative_to(folder).parts) > MAX_DEPTH:
            folders.clear()
        for name in sorted(files):
            count += 1
            if count > MAX_FILES:
                return
            yield Path(root) / name
