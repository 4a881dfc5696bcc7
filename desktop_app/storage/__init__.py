"""Where chats are kept: SQLite through apsw, and nobody else touches it."""

from desktop_app.storage.library import Library
from desktop_app.storage.opening import KeyProvider, restore_backup
from desktop_app.storage.search import Hit
from desktop_app.storage.steps import LibraryStep
from desktop_app.storage.trash import Removal, Trash

__all__ = ["Hit", "KeyProvider", "Library", "LibraryStep", "Removal", "Trash", "restore_backup"]
