"""The shelf: what lies where, and what happens when it moves."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from desktop_app.errors import KnownError
from desktop_app.weights.places import System, foreign_files, is_weights_name
from desktop_app.weights.shelf import Entry, Shelf
from tests.fakes.hub_files import Shape, header, write


@pytest.fixture
def system(tmp_path: Path) -> System:
    home = tmp_path / "home"
    home.mkdir()
    return System(home, {}, "linux")


@pytest.fixture
def shelf(tmp_path: Path, system: System) -> Shelf:
    return Shelf(tmp_path / "profile", system=system)


def file(path: Path, name: str = "Some weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, Shape(name=name))
    return path


def sources(shelf: Shelf) -> dict[str, str]:
    return {entry.title: entry.source for entry in shelf.refresh()}


def test_finds_what_other_programs_hold(system: System, shelf: Shelf) -> None:
    home = system.home
    file(home / ".lmstudio/models/maker/repo/a.gguf", "LM")
    file(home / ".local/share/nomic.ai/GPT4All/b.gguf", "GPT4All")
    file(home / ".local/share/Jan/data/llamacpp/models/x/model.gguf", "Jan")
    file(home / ".cache/llama.cpp/d.gguf", "Cpp")
    blob = file(home / ".cache/huggingface/hub/models--a--b/blobs" / ("e" * 64), "Hub")
    snapshot = home / ".cache/huggingface/hub/models--a--b/snapshots/123/e.gguf"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(blob)
    found = {entry.title: entry for entry in shelf.refresh()}
    assert {title: entry.source for title, entry in found.items()} == {
        "LM": "lm-studio", "GPT4All": "gpt4all", "Jan": "jan", "Cpp": "llama.cpp",
        "Hub": "hub-cache",
    }  # fmt: skip
    assert found["Hub"].sha256 == "e" * 64
    assert all(entry.is_ready for entry in found.values())


def ollama(folder: Path, name: str) -> str:
    """An Ollama store with one model; returns its digest."""
    made = file(folder / "blobs" / "new", name)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    made.rename(folder / "blobs" / f"sha256-{digest}")
    manifest = folder / "manifests/registry.example/library/tinyllama/latest"
    manifest.parent.mkdir(parents=True)
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "0" * 64},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc/passwd"},
    ]
    manifest.write_text(json.dumps({"layers": layers}), encoding="utf-8")
    (manifest.parent / "broken").write_text("{", encoding="utf-8")
    return digest


def test_reads_ollamas_blobs_by_their_manifests(system: System, shelf: Shelf) -> None:
    digest = ollama(system.home / ".ollama/models", "whatever")
    [entry] = shelf.refresh()
    assert (entry.title, entry.source, entry.sha256) == ("tinyllama:latest", "ollama", digest)
    assert shelf.verify(entry) == digest


def test_places_follow_the_environment(tmp_path: Path) -> None:
    environment = {
        "OLLAMA_MODELS": str(tmp_path / "o"),
        "LLAMA_CACHE": str(tmp_path / "c"),
        "HF_HOME": str(tmp_path / "h"),
    }
    ollama(tmp_path / "o", "x")
    file(tmp_path / "c/y.gguf")
    file(tmp_path / "h/hub/models--a/snapshots/1/z.gguf")
    found = {item.source for item in foreign_files(System(tmp_path / "none", environment, "linux"))}
    assert found == {"ollama", "llama.cpp", "hub-cache"}


@pytest.mark.parametrize(
    ("platform", "places"),
    [
        ("darwin", {
            "gpt4all": "Library/Application Support/nomic.ai/GPT4All",
            "jan": "Library/Application Support/Jan/data/llamacpp/models/x",
            "llama.cpp": "Library/Caches/llama.cpp",
            "lm-studio": ".lmstudio/models/a/b",
            "hub-cache": ".cache/huggingface/hub/models--a/snapshots/1",
        }),
        ("win32", {
            "gpt4all": "AppData/Local/nomic.ai/GPT4All",
            "jan": "AppData/Roaming/Jan/data/llamacpp/models/x",
            "llama.cpp": "AppData/Local/llama.cpp",
            "lm-studio": ".lmstudio/models/a/b",
            "hub-cache": ".cache/huggingface/hub/models--a/snapshots/1",
        }),
    ],
)  # fmt: skip
def test_places_of_other_systems(tmp_path: Path, platform: str, places: dict[str, str]) -> None:
    # Windows names these folders in its environment.
    environment = {}
    if platform == "win32":
        for name, folder in (("LOCALAPPDATA", "Local"), ("APPDATA", "Roaming")):
            environment[name] = str(tmp_path / "AppData" / folder)
    for source, place in places.items():
        file(tmp_path / place / f"{source}.gguf")
    system = System(tmp_path, environment, platform)
    found = {item.path.stem: item.source for item in foreign_files(system)}
    assert found == {source: source for source in places}


def test_lm_studios_moved_home_is_found(system: System, tmp_path: Path, shelf: Shelf) -> None:
    (system.home / ".lmstudio-home-pointer").write_text(str(tmp_path / "moved"), encoding="utf-8")
    file(tmp_path / "moved/models/m/r/a.gguf", "Moved")
    assert sources(shelf) == {"Moved": "lm-studio"}


def test_lm_studios_chosen_folder_is_used(system: System, tmp_path: Path, shelf: Shelf) -> None:
    settings = system.home / ".lmstudio/settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"downloadsFolder": str(tmp_path / "big")}), encoding="utf-8")
    file(tmp_path / "big/m/r/a.gguf", "Chosen")
    assert sources(shelf) == {"Chosen": "lm-studio"}


def test_names_that_are_listed() -> None:
    assert is_weights_name("a.GGUF")
    assert is_weights_name("a-00001-of-00003.gguf")
    for name in (
        "a-00002-of-00003.gguf",
        "mmproj-a.gguf",
        "a.imatrix.gguf",
        "a.gguf.part",
        ".a.gguf",
    ):
        assert not is_weights_name(name)


def test_one_file_is_listed_once(tmp_path: Path, shelf: Shelf) -> None:
    real = file(tmp_path / "drive/a.gguf")
    link = tmp_path / "drive/b.gguf"
    link.symlink_to(real)
    shelf.add_folder(tmp_path / "drive")
    shelf.add_file(real)
    assert len(shelf.refresh()) == 1


def test_a_drive_that_is_away_stays_listed(tmp_path: Path, shelf: Shelf, system: System) -> None:
    drive = tmp_path / "drive"
    file(drive / "weights/a.gguf", "Away")
    alone = file(tmp_path / "stick/b.gguf", "Alone")
    shelf.add_folder(drive / "weights")
    shelf.add_file(alone)
    shelf.set_settings(shelf.find("Away"), {"threads": 3})
    drive.rename(tmp_path / "unplugged")
    alone.parent.rename(tmp_path / "pulled")
    again = Shelf(tmp_path / "profile", system=system)
    assert {entry.title for entry in again.entries()} == {"Away", "Alone"}
    assert {entry.title: entry.state for entry in again.refresh()} == {
        "Away": "away", "Alone": "away",
    }  # fmt: skip
    assert "not connected" in again.find("Away").problem_sentence
    (tmp_path / "unplugged").rename(drive)
    (tmp_path / "pulled").rename(alone.parent)
    assert {entry.state for entry in again.refresh()} == {"ready"}
    assert again.settings(again.find("Away")) == {"threads": 3}


def test_an_unmounted_drive_leaves_an_empty_folder(
    tmp_path: Path, shelf: Shelf, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drives of the system's list of mounts have a folder that stays when they are away."""
    drive, plugged = tmp_path / "drive", [True]
    mounted = os.path.ismount
    monkeypatch.setattr(
        "desktop_app.weights.shelf.os.path.ismount",
        lambda path: plugged[0] if Path(path) == drive else mounted(path),
    )
    kept = file(drive / "a.gguf", "Away")
    deleted = file(drive / "b.gguf", "Deleted")
    shelf.add_folder(drive)
    deleted.unlink()
    assert [entry.title for entry in shelf.refresh()] == ["Away"]
    kept.rename(tmp_path / "elsewhere")
    plugged[0] = False
    again = Shelf(tmp_path / "profile", system=system)
    assert [(entry.title, entry.state) for entry in again.refresh()] == [("Away", "away")]
    (tmp_path / "elsewhere").rename(kept)
    plugged[0] = True
    assert [entry.state for entry in again.refresh()] == ["ready"]


def test_a_file_deleted_from_a_watched_folder_is_dropped(tmp_path: Path, shelf: Shelf) -> None:
    gone = file(tmp_path / "drive/a.gguf")
    [entry] = shelf.add_folder(tmp_path / "drive")
    assert entry.source == "folder"
    gone.unlink()
    assert shelf.refresh() == []


def test_settings_follow_the_content(tmp_path: Path, shelf: Shelf) -> None:
    first = shelf.add_file(file(tmp_path / "a.gguf"))
    shelf.set_settings(first, {"context_length": 4096, "template": "chatml"})
    (tmp_path / "a.gguf").rename(tmp_path / "b.gguf")
    moved = shelf.add_file(tmp_path / "b.gguf")
    assert shelf.settings(moved) == {"context_length": 4096, "template": "chatml"}
    shelf.set_settings(moved, {})
    assert shelf.settings(moved) == {}


def test_damaged_incomplete_and_other_files_say_so(tmp_path: Path, shelf: Shelf) -> None:
    folder = tmp_path / "drive"
    folder.mkdir()
    (folder / "damaged.gguf").write_bytes(b"GGUF" + bytes(40))
    (folder / "part-00001-of-00002.gguf").write_bytes(
        file(tmp_path / "x.gguf").read_bytes()
    )  # fmt: skip
    (folder / "vocabulary.gguf").write_bytes(header(Shape().keys(), []))
    states = {entry.path.stem: entry.state for entry in shelf.add_folder(folder)}
    assert states["damaged"] == "damaged"
    assert states["vocabulary"] == "other"
    with pytest.raises(KnownError) as caught:
        shelf.add_file(folder / "damaged.gguf")
    assert caught.value.code == "weights-version"


def test_what_a_download_brought(shelf: Shelf) -> None:
    path = file(shelf.own_folder / "maker/repo/a.gguf", "Fresh")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    heard: list[int] = []
    shelf.add_listener(lambda: heard.append(1))
    entry = shelf.arrived(path, digest)
    assert (entry.source, entry.sha256, heard) == ("own", digest, [1])
    assert shelf.verify(entry) == digest
    path.write_bytes(path.read_bytes()[:-8] + b"flipped!")
    with pytest.raises(KnownError) as caught:
        shelf.verify(shelf.refresh()[0])
    assert caught.value.code == "weights-hash"


def test_remove_deletes_only_own_files(tmp_path: Path, shelf: Shelf) -> None:
    own = file(shelf.own_folder / "maker/repo/a.gguf", "Own")
    other = file(tmp_path / "drive/b.gguf", "Other")
    shelf.add_folder(tmp_path / "drive")
    shelf.remove(shelf.find("Own"))
    shelf.remove(shelf.find("Other"))
    assert not own.exists()
    assert list(shelf.own_folder.iterdir()) == []
    assert other.exists()
    assert shelf.refresh() == []  # forgotten stays forgotten
    shelf.add_file(other)
    assert [entry.title for entry in shelf.refresh()] == ["Other"]


def test_find_by_path_name_title_or_part(tmp_path: Path, shelf: Shelf) -> None:
    path = file(tmp_path / "llama-small.gguf", "Small Llama")
    file(tmp_path / "qwen-small.gguf", "Small Qwen")
    shelf.add_folder(tmp_path)
    for name in (str(path), "llama-small.gguf", "llama-small", "small llama", "LLAMA"):
        assert shelf.find(name).path == path
    for name in ("small", "nothing"):
        with pytest.raises(KnownError) as caught:
            shelf.find(name)
        assert caught.value.code == "weights-unknown"


def test_a_damaged_state_file_is_set_aside(tmp_path: Path, system: System) -> None:
    state = tmp_path / "profile/shelf.json"
    state.parent.mkdir()
    state.write_text('{"folders": [', encoding="utf-8")
    assert Shelf(tmp_path / "profile", system=system).entries() == []
    assert (tmp_path / "profile/shelf.json.damaged").exists()
    state.write_text('{"entries": [{"path": 5}, 7], "files": 3, "settings": []}', encoding="utf-8")
    assert Shelf(tmp_path / "profile", system=system).entries() == []


def test_unchanged_files_are_not_read_again(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(tmp_path / "drive/a.gguf")
    shelf.add_folder(tmp_path / "drive")

    def never(*_args: object) -> Entry:
        raise AssertionError("the header was read again")

    monkeypatch.setattr("desktop_app.weights.shelf.read_header", never)
    assert len(shelf.refresh()) == 1


def test_two_shelves_do_not_undo_each_other(tmp_path: Path, shelf: Shelf, system: System) -> None:
    """A command that runs beside a window writes the same file."""
    first = shelf.add_file(file(tmp_path / "a.gguf", "One"))
    window = Shelf(tmp_path / "profile", system=system)
    path = file(shelf.own_folder / "m/r/b.gguf", "Two")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    shelf.arrived(path, digest)
    shelf.set_settings(shelf.find("Two"), {"threads": 1})
    window.set_settings(first, {"threads": 2})
    window.refresh()
    again = Shelf(tmp_path / "profile", system=system)
    assert again.settings(again.find("One")) == {"threads": 2}
    assert again.settings(again.find("Two")) == {"threads": 1}
    assert again.find("Two").sha256 == digest
    again.set_settings(again.find("Two"), {})
    assert Shelf(tmp_path / "profile", system=system).settings(again.find("Two")) == {}
