"""Where the window's own files (icons, themes, fonts, words) are."""

from __future__ import annotations

import sys
from pathlib import Path


def asset(*parts: str) -> Path:
    """The path of a file under ``resources/``, in a checkout, a wheel or a frozen build."""
    frozen = getattr(sys, "_MEIPASS", None)
    root = Path(frozen) if frozen else Path(__file__).resolve().parents[2]
    return root.joinpath("resources", *parts)
