"""Profiles and libraries for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from desktop_app.paths import Profile
from desktop_app.storage import Library

WAIT_S = 60
"""How long a test waits for a future: only a deadlock takes that long."""


@contextmanager
def library(root: Path, *, vfs: str | None = None, read_only: bool = False) -> Iterator[Library]:
    """An open library, closed afterwards."""
    opened = Library.open(Profile(root), vfs=vfs, read_only=read_only)
    try:
        yield opened
    finally:
        opened.close()
