"""The words of the interface, by key, in the interface language.

``resources/i18n/en.toml`` holds every key; another language may lack some, which then stand in
English.  An entry is a text with ``{name}`` places, or a table with `one` and `other` that is
chosen by the value `count` (or `n`).
"""

from __future__ import annotations

import tomllib
from functools import cache

from PySide6.QtCore import QLocale

from desktop_app.ui.assets import asset

LANGUAGES = ("en", "ko")

_language = "en"


def set_language(language: str) -> str:
    """Use ``"en"``, ``"ko"`` or ``"auto"`` (the system's); returns the one in use."""
    global _language  # noqa: PLW0603 - the interface has one language at a time
    if language == "auto":
        language = QLocale.system().name().split("_")[0]
    _language = language if language in LANGUAGES else "en"
    return _language


def language() -> str:
    """The language in use."""
    return _language


@cache
def _entries(language: str) -> dict[str, object]:
    with asset("i18n", f"{language}.toml").open("rb") as file:
        table = tomllib.load(file)
    flat: dict[str, object] = {}
    for room, entries in table.items():
        for key, entry in entries.items():
            flat[f"{room}.{key}"] = entry
    return flat


def tr(key: str, **values: object) -> str:
    """The text for a key such as ``"row.ask_again"``, with `{places}` filled.

    Whole numbers are written as the locale writes them.  KeyError for a key that English lacks.
    """
    entry = _entries(_language).get(key)
    if entry is None:
        entry = _entries("en")[key]
    if isinstance(entry, dict):
        amount = values.get("count", values.get("n"))
        entry = entry["one"] if amount == 1 and "one" in entry else entry["other"]
    shown = {name: _shown(value) for name, value in values.items()}
    return str(entry).format(**shown) if shown else str(entry)


def number(value: int) -> str:
    """A whole number with the locale's group marks."""
    return _locale().toString(value)


def _shown(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return number(value)
    return value


def _locale() -> QLocale:
    return QLocale("ko_KR") if _language == "ko" else QLocale("en_US")
