"""Spares the start of the window work that is of no use to it.  Called before anything of Qt."""

from __future__ import annotations

import builtins
import gc


def begin() -> None:
    """Import without PySide's hook and without collecting garbage, until `end`.

    PySide reads the source of every module imported after it, to see whether it wants the
    `__feature__` switches; Grove uses none.  A start makes classes and functions that all stay:
    collections would find nothing.
    """
    gc.disable()
    import PySide6.QtCore  # noqa: F401 - puts its hook in place

    plain = getattr(builtins, "__orig_import__", None)
    if plain is not None:
        builtins.__import__ = plain


def end() -> None:
    """Collect garbage as usual; what the start made is not looked through again."""
    gc.freeze()
    gc.enable()
