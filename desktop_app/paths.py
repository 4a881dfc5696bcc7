"""Where Grove keeps its files: the profile folder, and the read-only resources it ships with."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

APP_NAME = "Grove"


@dataclass(frozen=True, slots=True)
class Profile:
    """One folder that holds everything of one user: chats, settings, weights, logs.

    Pure arithmetic on paths: nothing is created until `create()`.
    """

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "library.db"

    @property
    def blobs(self) -> Path:
        """Content-addressed attachments of messages."""
        return self.root / "blobs"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def cache(self) -> Path:
        """Things that can be made again (the prompt cache): never part of a backup."""
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    @property
    def settings_file(self) -> Path:
        return self.root / "settings.json"

    @property
    def lock_file(self) -> Path:
        return self.root / "profile.lock"

    def create(self) -> None:
        """Make the folders, readable by their owner only.  Raises OSError where that fails."""
        for folder in (self.root, self.blobs, self.backups, self.cache, self.logs, self.weights):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def default_profile() -> Profile:
    """The profile of this user on this system, by the platform's own convention."""
    import platformdirs  # here: a start with --profile does without it

    return Profile(Path(platformdirs.user_data_dir(APP_NAME, appauthor=False)))


def resources_dir() -> Path:
    """The folder of icons, fonts, themes and the starter weights.

    A frozen build unpacks it beside the code (``sys._MEIPASS``), a wheel carries it inside the
    package, a checkout has it beside the package.
    """
    unpacked = getattr(sys, "_MEIPASS", None)
    if unpacked is not None:
        return Path(unpacked) / "resources"
    return _resources_beside_code()


@cache
def _resources_beside_code() -> Path:
    package = Path(__file__).resolve().parent
    inside = package / "resources"
    return inside if inside.is_dir() else package.parent / "resources"


def starter_weights() -> Path | None:
    """The small weights file that ships with Grove, or None where it was left out."""
    file = resources_dir() / "weights" / "starter.gguf"
    return file if file.is_file() else None
