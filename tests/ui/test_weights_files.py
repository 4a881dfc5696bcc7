"""The weights page's finer points: headers read before a download, twins, order, what stays put."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gguf
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QLineEdit

from desktop_app.ui.controls import ChoiceButton, Switch
from desktop_app.ui.weights_details import FileDetails
from desktop_app.ui.weights_notes import Details
from desktop_app.weights.fit import Machine, SpeedBook, load_of
from desktop_app.weights.gguf import Header, read_header
from tests.fakes import tiny_gguf
from tests.fakes.hub import FakeHub
from tests.ui.desk import Desk
from tests.ui.test_weights_page import (
    click,
    fill,
    find_button,
    keys,
    line_of,
    open_page,
    search,
)

TWINS = "tester/Twin-Llama-GGUF"
GATED = "tester/Gated-Llama-GGUF"
BIG_BYTES = 2_000_000


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A repository with two files of one quantisation, and a gated one."""
    fill(tmp_path / "hub", TWINS, "Q4_K_M", "v2-Q4_K_M", "Q8_0", size_bytes=BIG_BYTES)
    fill(tmp_path / "hub", GATED, "Q4_K_M")
    with FakeHub(tmp_path / "hub") as made:
        made.gated = {GATED}
        yield made


def file_key(name: str) -> str:
    return f"file/{TWINS}/Twin-Llama-{name}.gguf"


def open_repository(desk: Desk) -> FileDetails:
    open_page(desk)
    search(desk, "twin")
    desk.wait(lambda: f"result/{TWINS}" in keys(desk))
    click(desk, f"weights.result.{TWINS}")
    desk.wait(lambda: file_key("Q8_0") in keys(desk))
    return desk.window.hub.store.details


def details_of(desk: Desk, name: str) -> Details:
    """What stands below an open file; nothing while it is not there yet."""
    key = file_key(name).replace("file/", "details/")
    rows = desk.window.hub.page.list.rows()
    facts = next((row.facts for row in rows if row.key == key), Details("", "", "", ""))
    assert isinstance(facts, Details)
    return facts


def test_an_open_file_is_judged_by_its_header(desk: Desk, hub: FakeHub) -> None:
    details = open_repository(desk)
    key = (TWINS, "Twin-Llama-Q8_0.gguf")
    assert key not in details.headers
    row = find_button(desk, f"weights.file.{TWINS}.Q8_0")
    row.setFocus()
    QTest.keyClick(row, Qt.Key.Key_Return)
    desk.wait(lambda: isinstance(details.headers.get(key), Header))
    desk.wait(lambda: details_of(desk, "Q8_0").facts.startswith("llama architecture · 2 layers"))
    # The header came by ranges, not by fetching the file.
    assert sum(request.sent for request in hub.log if request.origin == "files") < BIG_BYTES
    store = desk.window.hub.store
    files = store.repositories[TWINS]
    item = next(q for q in files.quantisations if q.name == key[1])  # type: ignore[union-attr]  # it came
    automatic = details.fit(files, item)  # type: ignore[arg-type]  # as above
    assert automatic is not None
    assert automatic.context_length == 2048
    menu = desk.window.hub.page.context_menu(key, 0)
    names = [action.objectName() for action in menu.actions()]
    assert names == ["weights.context.0", "weights.context.2048"]
    menu.actions()[1].trigger()
    desk.wait(lambda: details_of(desk, "Q8_0").context == "2,048 tokens")
    button = desk.find(ChoiceButton, f"weights.context.{TWINS}.{key[1]}")
    desk.wait(lambda: button.accessibleName() == "Context: 2,048 tokens")
    click(desk, f"weights.file.{TWINS}.Q8_0")
    desk.wait(lambda: file_key("Q8_0").replace("file/", "details/") not in keys(desk))
    # The choice goes with the file.
    click(desk, f"weights.get.{TWINS}.Q8_0")
    own = {"Twin-Llama-Q8_0.gguf": {"context_length": 2048}}
    desk.wait(lambda: desk.settings.weights_own == own)


def test_a_header_that_does_not_come_can_be_asked_for_again(desk: Desk, hub: FakeHub) -> None:
    details = open_repository(desk)
    hub.gated.add(TWINS)
    click(desk, f"weights.file.{TWINS}.Q8_0")
    desk.wait(lambda: details_of(desk, "Q8_0").again)
    assert details_of(desk, "Q8_0").role == "clay"
    # The size still tells how it would run.
    assert line_of(desk, file_key("Q8_0")).verdict is not None
    hub.gated.discard(TWINS)
    click(desk, f"weights.header_again.{TWINS}.Twin-Llama-Q8_0.gguf")
    desk.wait(lambda: "llama architecture" in details_of(desk, "Q8_0").facts)
    assert isinstance(details.headers[TWINS, "Twin-Llama-Q8_0.gguf"], Header)


def test_two_files_of_one_quantisation_are_two_downloads(desk: Desk, hub: FakeHub) -> None:
    open_repository(desk)
    store = desk.window.hub.store
    one, two = file_key("Q4_K_M"), file_key("v2-Q4_K_M")
    assert line_of(desk, one).facts == "Twin-Llama-Q4_K_M.gguf"
    assert line_of(desk, file_key("Q8_0")).facts == "As good as the original"
    hub.rate = 200_000
    click(desk, f"weights.get.{TWINS}.Twin-Llama-v2-Q4_K_M.gguf")
    desk.wait(lambda: bool(store.downloads))
    assert store.downloads[0].files[0].path == "Twin-Llama-v2-Q4_K_M.gguf"
    assert line_of(desk, one).button_on
    assert not line_of(desk, two).button_on
    hub.rate = 0
    desk.wait(lambda: store.downloads[0].state == "done")
    desk.wait(lambda: (line_of(desk, two).button or ("",))[0] == "Use")
    assert (line_of(desk, one).button or ("",))[0] == "Download"


def test_the_queue_is_ordered_by_keyboard(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    hub.rate = 100_000
    store = desk.window.hub.store
    for file in ("Q4_K_M", "v2-Q4_K_M", "Q8_0"):
        store.queue.get(TWINS, file, f"Twin-Llama-{file}.gguf")
        desk.wait(lambda: not store.queue.asking)
    desk.wait(lambda: len(store.downloads) == 3)
    first, second, third = (item.id for item in store.downloads)

    def order() -> list[int]:
        return [item.id for item in store.downloads]

    desk.wait(lambda: bool(buttons(desk, f"weights.later.{third}")))
    assert not find_button(desk, f"weights.earlier.{first}").isEnabled()
    assert not find_button(desk, f"weights.later.{third}").isEnabled()
    click(desk, f"weights.later.{second}")
    desk.wait(lambda: order() == [first, third, second])
    pause = find_button(desk, f"weights.pause.{second}")
    pause.setFocus()
    alt = Qt.KeyboardModifier.AltModifier
    QTest.keyClick(pause, Qt.Key.Key_Up, alt)
    desk.wait(lambda: order() == [first, second, third])
    QTest.keyClick(pause, Qt.Key.Key_End, alt)
    desk.wait(lambda: order() == [first, third, second])
    QTest.keyClick(pause, Qt.Key.Key_Home, alt)
    desk.wait(lambda: order() == [second, first, third])
    assert find_button(desk, f"weights.pause.{second}").hasFocus()
    assert store.downloads[0].state in ("queued", "running")
    for number in (first, second, third):
        store.queue.act("cancel", number)
    desk.wait(lambda: not store.downloads)


def buttons(desk: Desk, identifier: str) -> list[QAbstractButton]:
    return [b for b in desk.window.findChildren(QAbstractButton, identifier) if b.isVisible()]


def test_suggestions_keep_their_places_until_asked(desk: Desk) -> None:
    open_page(desk)
    store = desk.window.hub.store
    assert store.room is not None
    speeds = SpeedBook()
    speeds.record_memory_speed(28e9)
    catalogue = store.room.catalogue
    large = Machine(16_000_000_000, 11_000_000_000, 8, 41_000_000_000)
    small = Machine(16_000_000_000, 2_500_000_000, 8, 41_000_000_000)
    store.judged(large, catalogue.suggest(large, speeds))
    before = [item.entry.id for item in store.suggestions]
    best = store.recommended()
    assert best is not None
    outdated = [store.is_outdated]
    # Another program took the memory: the verdicts say so, and nothing changes its place.
    store.judged(small, catalogue.suggest(small, speeds), settle=False)
    assert [item.entry.id for item in store.suggestions] == before
    now = store.recommended()
    assert now is not None
    assert now.entry.id == best.entry.id
    assert now.fit.verdict == "too-big"
    outdated.append(store.is_outdated)
    assert outdated == [False, True]
    # The page that is opened the next time, or “Look again”, sorts anew.
    store.judged(small, catalogue.suggest(small, speeds))
    other = store.recommended()
    assert other is not None
    assert other.entry.id != best.entry.id
    assert store.suggestions[0] is other


def test_offline_the_page_says_so_and_leads_online(desk: Desk, hub: FakeHub) -> None:
    details = open_repository(desk)
    asked = len(hub.log)
    desk.find(Switch, "connections.offline").click()
    desk.wait(lambda: "note/offline" in keys(desk))
    field = desk.find(QLineEdit, "weights.search")
    field.clear()
    desk.wait(lambda: "note/offline_page" in keys(desk))
    store = desk.window.hub.store
    found = store.repositories[TWINS]
    details.toggle(found, found.quantisations[0])  # type: ignore[arg-type, union-attr]  # it came
    assert details.headers == {}
    assert len(hub.log) == asked
    click(desk, "weights.go_online")
    desk.wait(lambda: "note/offline_page" not in keys(desk))
    assert not desk.settings.offline
    assert not desk.find(Switch, "connections.offline").isChecked()


def test_what_the_switch_stopped_goes_on_after_it(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    hub.rate = 300_000
    store = desk.window.hub.store
    store.queue.get(TWINS, "Q8_0")
    desk.wait(lambda: bool(store.downloads) and store.downloads[0].done_bytes > 0)
    desk.find(Switch, "connections.offline").click()
    desk.wait(lambda: store.downloads[0].state == "failed")
    number = store.downloads[0].id
    desk.wait(lambda: "waits until" in line_of(desk, f"download/{number}").facts)
    assert line_of(desk, f"download/{number}").facts_role == "text3"
    assert not desk.window.page.toast.text
    hub.rate = 0
    click(desk, "weights.go_online")
    desk.wait(lambda: store.downloads[0].state == "done")


def test_a_refused_download_shows_the_field_for_a_token(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    store = desk.window.hub.store
    store.queue.get(GATED, "Q4_K_M")
    desk.wait(lambda: bool(store.downloads) and store.downloads[0].state == "failed")
    desk.wait(lambda: f"gate/{GATED}" in keys(desk))
    field = desk.find(QLineEdit, "weights.token")
    QTest.keyClicks(field, "hf_right")
    QTest.keyClick(field, Qt.Key.Key_Return)
    desk.wait(lambda: store.downloads[0].state == "done")
    desk.wait(lambda: f"gate/{GATED}" not in keys(desk))


def test_a_known_token_is_not_asked_for_again(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    store = desk.window.hub.store
    assert store.room is not None
    store.room.hub.tokens.set(store.room.hub.origin, "hf_right")
    search(desk, "gated")
    desk.wait(lambda: f"result/{GATED}" in keys(desk))
    store.toggle(GATED)
    desk.wait(lambda: store.has_token)
    desk.wait(lambda: f"gate/{GATED}" not in keys(desk))
    store.forget_token()
    desk.wait(lambda: f"gate/{GATED}" in keys(desk))


def test_two_files_of_one_name_are_two_rows(desk: Desk, tmp_path: Path) -> None:
    open_page(desk)
    for folder in ("one", "two"):
        desk.window.hub.page.add_file(Desk.weights(tmp_path / folder, "Same.gguf"))
    rows = [f"installed/{tmp_path / folder / 'Same.gguf'}" for folder in ("one", "two")]
    desk.wait(lambda: set(rows) <= set(keys(desk)))
    names = {line_of(desk, row).identifier for row in rows}
    assert names == {f"weights.{row.replace('/', '.', 1)}" for row in rows}


def test_a_header_in_parts_counts_the_tensors_of_all(
    desk: Desk, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_header(tiny_gguf.write(tmp_path / "whole.gguf"))
    home = hub.folder / "tester" / "Parts-GGUF"
    home.mkdir()
    cut = partial(gguf.GGUFWriter, split_max_tensors=8)
    monkeypatch.setattr(gguf, "GGUFWriter", cut)
    tiny_gguf.write(home / "Parts-Q8_0.gguf")
    assert len(list(home.iterdir())) == 3
    open_page(desk)
    search(desk, "parts")
    desk.wait(lambda: "result/tester/Parts-GGUF" in keys(desk))
    click(desk, "weights.result.tester/Parts-GGUF")
    click(desk, "weights.file.tester/Parts-GGUF.Q8_0")
    details = desk.window.hub.store.details
    key = ("tester/Parts-GGUF", "Parts-Q8_0.gguf")
    desk.wait(lambda: isinstance(details.headers.get(key), Header))
    found = details.headers[key]
    assert isinstance(found, Header)
    assert load_of(found) == load_of(whole)
    assert found.parameter_count == whole.parameter_count
