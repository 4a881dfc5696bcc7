"""Settings: declared once, checked, atomic, and nothing of another version is lost."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from desktop_app import paths
from desktop_app.paths import Profile, default_profile, resources_dir
from desktop_app.settings import Settings


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    profile = Profile(tmp_path / "p")
    profile.create()
    return profile


def test_defaults_and_a_round_trip(profile: Profile) -> None:
    settings = Settings.load(profile)
    assert (settings.theme, settings.gpu_layers, settings.offline) == ("auto", -1, False)
    settings.theme = "dark"
    settings.presets = {"mine": {"temperature": 0.2}}
    settings.save()
    again = Settings.load(profile)
    assert (again.theme, again.presets) == ("dark", {"mine": {"temperature": 0.2}})
    assert again.notice == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("theme", "purple"),
        ("theme", 1),
        ("threads", -1),
        ("threads", True),
        ("threads", 1.5),
        ("text_scale", float("nan")),
        ("text_scale", 100),
        ("offline", 1),
        ("presets", []),
        ("kv_type", "q2"),
    ],
)
def test_values_that_cannot_be(profile: Profile, key: str, value: Any) -> None:
    settings = Settings.load(profile)
    before = getattr(settings, key)
    with pytest.raises(ValueError, match=key):
        setattr(settings, key, value)
    profile.settings_file.write_text(json.dumps({key: value}))
    assert getattr(Settings.load(profile), key) == before


def test_unknown_keys_survive(profile: Profile) -> None:
    profile.settings_file.write_text('{"from_the_future": {"a": [1]}, "theme": "light"}')
    settings = Settings.load(profile)
    settings.theme = "dark"
    settings.save()
    assert json.loads(profile.settings_file.read_text()) == {
        "from_the_future": {"a": [1]},
        "theme": "dark",
    }


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"", b"[" * 100_000])
def test_a_damaged_file_is_set_aside(profile: Profile, content: bytes) -> None:
    profile.settings_file.write_bytes(content)
    for n in (1, 2):
        settings = Settings.load(profile)
        assert "damaged" in settings.notice
        aside = profile.settings_file.with_name(f"settings.damaged-{n}.json")
        assert aside.read_bytes() == content
        profile.settings_file.write_bytes(content)
    settings.theme = "dark"
    settings.save()
    assert Settings.load(profile).theme == "dark"


def test_what_is_read_is_a_copy(profile: Profile) -> None:
    settings = Settings.load(profile)
    settings.presets["x"] = {}
    assert settings.presets == {}
    settings.presets = {"x": {"y": 1}}
    settings.presets["x"]["y"] = 2
    assert settings.presets == {"x": {"y": 1}}


def test_watchers_hear_of_changes_only(profile: Profile) -> None:
    settings = Settings.load(profile)
    heard: list[str] = []
    settings.add_watcher(heard.append)
    settings.theme = "dark"
    settings.theme = "dark"
    settings.remove_watcher(heard.append)
    settings.theme = "light"
    assert heard == ["theme"]


def test_an_override_is_never_saved(profile: Profile) -> None:
    settings = Settings.load(profile)
    settings.override("threads", 3)
    assert settings.threads == 3
    settings.save()
    assert Settings.load(profile).threads == 0
    settings.threads = 2
    assert settings.threads == 2


def test_a_failed_save_leaves_the_old_file(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.load(profile)
    settings.theme = "dark"
    settings.save()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    settings.theme = "light"
    with pytest.raises(OSError, match="No space"):
        settings.save()
    assert json.loads(profile.settings_file.read_text()) == {"theme": "dark"}
    assert [p.name for p in profile.root.iterdir() if p.name.startswith(".")] == []


def test_the_profile_is_the_owners_alone(profile: Profile) -> None:
    if os.name == "posix":
        assert profile.root.stat().st_mode & 0o077 == 0
    assert profile.database.parent == profile.root
    assert default_profile().root.is_absolute()


def test_resources_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (resources_dir() / "icons").is_dir()
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    assert resources_dir() == tmp_path / "resources"
    assert paths.starter_weights() is None
