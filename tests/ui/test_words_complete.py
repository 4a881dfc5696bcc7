"""Every key that the interface asks for has words in every language, with the same places."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from desktop_app.conversation import document
from desktop_app.inference.sampling import PRESETS
from desktop_app.ui import words
from desktop_app.ui.actions import MENUS
from desktop_app.ui.page_verbs import step_name

UI = Path(words.__file__).parent
KEY = re.compile(r"""\btr\(\s*"([a-z_]+\.[a-z0-9_]+)\"""")


def keys_in_use() -> set[str]:
    """Keys written out in the source; those put together by code have tests of their own."""
    found: set[str] = set()
    for file in UI.glob("*.py"):
        found |= set(KEY.findall(file.read_text(encoding="utf-8")))
    return found


def places(entry: object) -> set[str]:
    texts = entry.values() if isinstance(entry, dict) else [entry]
    return {
        name
        for text in texts
        for _, name, _, _ in string.Formatter().parse(str(text))
        if name is not None
    }


def test_every_key_in_use_has_words() -> None:
    keys = keys_in_use()
    assert len(keys) > 100
    assert keys <= set(words._entries("en"))


@pytest.mark.parametrize("language", [one for one in words.LANGUAGES if one != "en"])
def test_other_languages_have_the_same_keys_and_places(language: str) -> None:
    english, other = words._entries("en"), words._entries(language)
    assert set(other) == set(english)
    wrong = {
        key: (places(english[key]), places(other[key]))
        for key in english
        if not places(other[key]) <= places(english[key])
    }
    assert wrong == {}


def test_commands_presets_and_steps_have_words() -> None:
    for menu, commands in MENUS.items():
        words.tr(f"menu.{menu}")
        for command in commands:
            if command.key:
                words.tr(f"menu.{command.key}")
    for preset in PRESETS:
        words.tr(f"preset.{preset.replace('-', '_')}")
    source = Path(document.__file__).read_text(encoding="utf-8")
    steps = set(re.findall(r'_do\(\s*"([a-z-]+)"', source))
    assert "send" not in {step_name(step) for step in steps if step != "send"}
    assert all(step_name(step) != words.tr("step.change") for step in steps), steps
