"""Where the window's own files (icons, themes, fonts, words) are."""

from __future__ import annotations

from pathlib import Path

from desktop_app.paths import resources_dir


def asset(*parts: str) -> Path:
    """The path of a file under ``resources/``."""
    return resources_dir().joinpath(*parts)
