"""The weights page against the loopback hub: search, downloads, files, the switch, first start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible, QAccessibleInterface
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QApplication, QComboBox, QLineEdit, QWidget
from pytestqt.qtbot import QtBot

from desktop_app.inference.engine import Job, Listener
from desktop_app.inference.protocol import LoadedWeights, WeightsSpec
from desktop_app.ui.controls import Switch
from desktop_app.ui.rows_view import Row, RowWidget
from desktop_app.ui.weights_notes import GateRow
from desktop_app.ui.weights_rows import Line
from desktop_app.weights.fit import Machine
from desktop_app.weights.hub import Repository, RepositorySummary
from desktop_app.weights.hub_files import HubFile, Quantisation
from desktop_app.weights.shelf import Entry
from tests.fakes import tiny_gguf
from tests.fakes.hub import FakeHub, Fault
from tests.ui.desk import Desk, room_of

REPOSITORY = "tester/Tiny-Llama-GGUF"
GATED = "tester/Gated-Llama-GGUF"
BIG_BYTES = 3_000_000


def fill(folder: Path, name: str, *labels: str, size_bytes: int = 0) -> None:
    """A repository of the fake hub."""
    home = folder / name
    home.mkdir(parents=True)
    short = name.split("/")[1].removesuffix("-GGUF")
    for label in labels:
        path = tiny_gguf.write(home / f"{short}-{label}.gguf")
        if size_bytes:
            with path.open("ab") as file:
                file.truncate(size_bytes)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """Two repositories, one of them gated."""
    fill(tmp_path / "hub", REPOSITORY, "Q4_K_M", "Q8_0", size_bytes=BIG_BYTES)
    fill(tmp_path / "hub", GATED, "Q4_K_M")
    with FakeHub(tmp_path / "hub") as made:
        made.gated = {GATED}
        yield made


def open_page(desk: Desk) -> None:
    desk.window.actions_by_key["weights_page"].trigger()
    store = desk.window.hub.store
    desk.wait(lambda: bool(store.suggestions) and store.looked)
    desk.wait(lambda: any(key.startswith(("suggestion/", "result/")) for key in keys(desk)))


def keys(desk: Desk) -> list[str]:
    return [row.key for row in desk.window.hub.page.list.rows()]


def line_of(desk: Desk, key: str) -> Line:
    row = next(row for row in desk.window.hub.page.list.rows() if row.key == key)
    facts = row.facts() if callable(row.facts) else row.facts
    assert isinstance(facts, Line)
    return facts


def buttons(desk: Desk, identifier: str) -> list[QAbstractButton]:
    return desk.window.findChildren(QAbstractButton, identifier)


def find_button(desk: Desk, identifier: str) -> QAbstractButton:
    found = [
        button
        for button in desk.window.findChildren(QAbstractButton, identifier)
        if button.isVisible()
    ]
    assert len(found) == 1, f"{identifier}: {len(found)}"
    return found[0]


def click(desk: Desk, identifier: str) -> None:
    desk.wait(lambda: any(b.isVisible() for b in buttons(desk, identifier)))
    find_button(desk, identifier).click()


def search(desk: Desk, words: str) -> None:
    QTest.keyClicks(desk.find(QLineEdit, "weights.search"), words)


def test_suggestions_are_sorted_and_one_is_recommended(desk: Desk) -> None:
    open_page(desk)
    store = desk.window.hub.store
    store.show_all = True
    desk.window.hub.page.refresh()
    shown = [key for key in keys(desk) if key.startswith("suggestion/")]
    verdicts = {s.entry.id: s.fit.verdict for s in store.suggestions}
    order = [verdicts[key.removeprefix("suggestion/")] for key in shown]
    assert order == sorted(order, key=["well", "slow", "too-big"].index)
    kinds = [row.kind for row in desk.window.hub.page.list.rows()]
    assert kinds.count("lead") == (1 if "well" in order else 0)
    too_big = [key for key in shown if verdicts[key.removeprefix("suggestion/")] == "too-big"]
    for key in too_big:
        line = line_of(desk, key)
        assert not line.button_on
        assert line.button_tip


def test_search_open_download_and_load(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    search(desk, "tiny")
    desk.wait(lambda: f"result/{REPOSITORY}" in keys(desk))
    assert f"result/{GATED}" not in keys(desk)
    row = find_button(desk, f"weights.result.{REPOSITORY}")
    row.setFocus()
    QTest.keyClick(row, Qt.Key.Key_Return)
    desk.wait(lambda: any(key.startswith("file/") for key in keys(desk)))
    line = line_of(desk, f"file/{REPOSITORY}/Tiny-Llama-Q4_K_M.gguf")
    assert line.facts == "Balanced: the usual choice"
    assert line.verdict is not None
    click(desk, f"weights.get.{REPOSITORY}.Q4_K_M")
    toast = desk.window.page.toast
    desk.wait(lambda: toast.text == "Tiny-Llama is ready")
    assert toast.isVisible()
    desk.find(QAbstractButton, "toast.action").click()
    desk.wait(lambda: desk.engine.loaded is not None)
    wanted = desk.profile.weights / "tester" / "Tiny-Llama-GGUF" / "Tiny-Llama-Q4_K_M.gguf"
    desk.wait(lambda: desk.settings.weights_path == str(wanted))
    assert not desk.window.hub.is_shown
    # The page knows that it is here, and does not offer it again.
    open_page(desk)
    key = f"file/{REPOSITORY}/Tiny-Llama-Q4_K_M.gguf"
    desk.wait(lambda: line_of(desk, key).button is not None)
    button = line_of(desk, key).button
    assert button is not None
    assert button[0] == "Use"


def test_a_search_is_dropped_for_the_next_one(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    store = desk.window.hub.store
    assert store.room is not None
    calls: list[tuple[str, threading.Event]] = []
    release = threading.Event()

    def slow(words: str, *, limit: int, cancel: threading.Event) -> list[RepositorySummary]:
        calls.append((words, cancel))
        if words == "first":
            release.wait(10)
        return [RepositorySummary(f"a/{words}", "a", words, 1, 1, False, "", "")]

    store.room.hub.search = slow  # type: ignore[method-assign, assignment]  # a hub that does not answer
    field = desk.find(QLineEdit, "weights.search")
    search(desk, "first")
    desk.wait(lambda: bool(calls))
    field.clear()
    search(desk, "second")
    desk.wait(lambda: "result/a/second" in keys(desk))
    assert calls[0][1].is_set()
    release.set()
    desk.wait(store._pool._work_queue.empty)
    QApplication.processEvents()
    assert "result/a/first" not in keys(desk)


def test_pause_resume_cancel_and_the_sidebars_line(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    hub.rate = 400_000
    store = desk.window.hub.store
    store.queue.get(REPOSITORY, "Q8_0")
    desk.wait(lambda: bool(store.downloads) and store.downloads[0].done_bytes > 0)
    number = store.downloads[0].id
    line = desk.find(QWidget, "sidebar.connections")
    desk.wait(lambda: line.accessibleName().startswith("1 download · connected"))
    desk.wait(lambda: f"download/{number}" in keys(desk))
    click(desk, f"weights.pause.{number}")
    desk.wait(lambda: store.downloads[0].state == "paused")
    desk.wait(lambda: line.accessibleName() == "No connections · 1 paused")
    hub.rate = 0
    click(desk, f"weights.resume.{number}")
    desk.wait(lambda: store.downloads[0].state == "done")
    click(desk, "weights.clear_finished")
    desk.wait(lambda: not store.downloads)
    hub.rate = 400_000
    store.queue.get(REPOSITORY, "Q4_K_M")
    desk.wait(lambda: bool(store.downloads) and store.downloads[0].done_bytes > 0)
    number = store.downloads[0].id
    desk.wait(lambda: f"download/{number}" in keys(desk))
    click(desk, f"weights.cancel.{number}")
    desk.wait(lambda: not store.downloads)


def test_switch_and_downloads_are_seen_with_the_sidebar_hidden(desk: Desk, hub: FakeHub) -> None:
    desk.window.sides.show_sidebar(False)
    corner = desk.find(QAbstractButton, "header.connections")
    assert corner.isVisible()
    assert corner.accessibleName() == "No connections"
    corner.click()
    assert desk.window.hub.is_shown
    corner = desk.find(QAbstractButton, "weights.connections")
    desk.find(Switch, "connections.offline").click()
    assert corner.isVisible()
    assert corner.accessibleName() == "Offline · no connections"


def test_a_failed_download_says_what_to_do(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    store = desk.window.hub.store
    hub.plan.extend(Fault("flip", 1000) for _ in range(12))
    store.queue.get(REPOSITORY, "Q8_0")
    desk.wait(lambda: bool(store.downloads) and store.downloads[0].state == "failed")
    number = store.downloads[0].id
    hub.plan.clear()
    desk.wait(lambda: line_of(desk, f"download/{number}").facts_role == "clay")
    assert "Try again" in line_of(desk, f"download/{number}").facts
    assert "stopped" in desk.window.page.toast.text
    click(desk, f"weights.resume.{number}")
    desk.wait(lambda: store.downloads[0].state == "done")


def test_gated_weights_ask_for_a_token(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    search(desk, "gated")
    desk.wait(lambda: f"result/{GATED}" in keys(desk))
    store = desk.window.hub.store
    store.toggle(GATED)
    desk.wait(lambda: f"gate/{GATED}" in keys(desk))
    store.queue.get(GATED, "Q4_K_M")
    desk.wait(lambda: bool(store.downloads) and store.downloads[0].state == "failed")
    gate = desk.window.hub.page.list.row_widget(f"gate/{GATED}")
    assert isinstance(gate, GateRow)
    field = desk.find(QLineEdit, "weights.token")
    QTest.keyClicks(field, "hf_wrong")
    QTest.keyClick(field, Qt.Key.Key_Return)
    desk.wait(lambda: "does not know this access token" in state_of(desk))
    QTest.keyClicks(field, "hf_right")
    QTest.keyClick(field, Qt.Key.Key_Return)
    desk.wait(lambda: "kept only until Grove ends" in state_of(desk))
    desk.wait(lambda: store.downloads[0].state == "done")
    assert not any(
        b"hf_right" in path.read_bytes() for path in desk.profile.root.rglob("*") if path.is_file()
    )


def state_of(desk: Desk) -> str:
    return desk.find(QWidget, "weights.token_state").accessibleName()


def test_offline_nothing_connects_and_the_page_is_useful(desk: Desk, hub: FakeHub) -> None:
    weights = tiny_gguf.write(desk.profile.weights / "Own-Q8_0.gguf")
    open_page(desk)
    switch = desk.find(Switch, "connections.offline")
    switch.click()
    desk.wait(lambda: desk.window.hub.store.offline)
    assert desk.settings.offline
    line = desk.find(QWidget, "sidebar.connections")
    assert line.accessibleName() == "Offline · no connections"
    desk.wait(lambda: f"installed/{weights}" in keys(desk))
    assert line_of(desk, f"installed/{weights}").button is not None
    search(desk, "tiny")
    desk.wait(lambda: "note/offline" in keys(desk))
    desk.find(QLineEdit, "weights.search").clear()
    desk.wait(lambda: "note/offline" not in keys(desk))
    assert hub.log == []


def test_the_settings_lead_to_the_connections(desk: Desk) -> None:
    desk.window.show_settings()
    desk.find(QAbstractButton, "settings.connections").click()
    assert desk.window.hub.is_shown
    desk.wait(desk.find(Switch, "connections.offline").isVisible)


def test_a_dead_hub_is_told_in_a_sentence(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    hub.hub_plan.append("503")
    search(desk, "tiny")
    desk.wait(lambda: "note/search_error" in keys(desk))
    assert "Try again" in line_of(desk, "note/search_error").title
    click(desk, "weights.search_again")
    desk.wait(lambda: f"result/{REPOSITORY}" in keys(desk))


def test_a_pasted_link_opens_its_repository(desk: Desk, hub: FakeHub) -> None:
    open_page(desk)
    desk.find(QLineEdit, "weights.search").setText(f"{hub.url}/{REPOSITORY}")
    desk.wait(lambda: f"file/{REPOSITORY}/Tiny-Llama-Q8_0.gguf" in keys(desk))


def test_verify_remove_and_take_off_the_list(desk: Desk, tmp_path: Path) -> None:
    own = tiny_gguf.write(desk.profile.weights / "Own-Q8_0.gguf")
    far = Desk.weights(tmp_path / "far", "Far-Q8_0.gguf")
    open_page(desk)
    page, store = desk.window.hub.page, desk.window.hub.store
    page.add_file(far)
    desk.wait(lambda: f"installed/{far}" in keys(desk))
    entries = {entry.path.name: entry for entry in store.entries}
    store.verify(entries["Own-Q8_0.gguf"])
    desk.wait(lambda: store.checking.get(str(own)) == "sound")
    desk.wait(lambda: "sound" in line_of(desk, f"installed/{own}").facts)
    names = [action.objectName() for action in page.entry_menu(entries["Own-Q8_0.gguf"]).actions()]
    assert "weights.entry.verify" in names
    asked: list[str] = []

    def answer(yes: bool) -> Callable[[str, str, str], bool]:
        def ask(question: str, _text: str, _yes: str) -> bool:
            asked.append(question)
            return yes

        return ask

    page.ask_yes = answer(False)
    page.remove(entries["Own-Q8_0.gguf"])
    assert own.exists()
    page.ask_yes = answer(True)
    page.remove(entries["Own-Q8_0.gguf"])
    page.remove(entries["Far-Q8_0.gguf"])
    desk.wait(lambda: not any(key.startswith("installed/") for key in keys(desk)))
    assert not own.exists()
    assert far.exists()
    assert len(asked) == 2


def test_a_file_on_a_drive_that_is_away_stays_listed(desk: Desk, tmp_path: Path) -> None:
    far = Desk.weights(tmp_path / "far", "Far-Q8_0.gguf")
    open_page(desk)
    desk.window.hub.page.add_file(far)
    desk.wait(lambda: f"installed/{far}" in keys(desk))
    far.unlink()
    desk.window.hub.store.look()
    desk.wait(lambda: line_of(desk, f"installed/{far}").badge is not None)
    badge = line_of(desk, f"installed/{far}").badge
    assert badge is not None
    assert badge.text == "Drive not connected"


def test_a_file_has_settings_of_its_own(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tiny_gguf.write(desk.profile.weights / "Own-Q8_0.gguf")
    open_page(desk)
    page = desk.window.hub.page
    desk.wait(lambda: f"installed/{own}" in keys(desk))
    entry = next(e for e in desk.window.hub.store.entries if e.path == own)
    page.settings_wanted.emit(entry)
    combo = desk.find(QComboBox, "own.context_length")
    combo.setCurrentIndex(combo.findData(1024))
    combo.activated.emit(combo.currentIndex())
    desk.find(QAbstractButton, "own.close").click()
    assert desk.settings.weights_own == {"Own-Q8_0.gguf": {"context_length": 1024}}
    # It goes with the content: under another name it still counts.
    renamed = own.with_name("Renamed.gguf")
    own.rename(renamed)
    desk.window.hub.store.look()
    desk.wait(lambda: f"installed/{renamed}" in keys(desk))
    specs: list[WeightsSpec] = []
    load = desk.engine.load

    def spy(spec: WeightsSpec, listener: Listener | None = None) -> Job[LoadedWeights]:
        specs.append(spec)
        return load(spec, listener)

    monkeypatch.setattr(desk.engine, "load", spy)
    desk.window.hub.load(renamed)
    assert desk.settings.weights_own["Renamed.gguf"] == {"context_length": 1024}
    desk.wait(lambda: str(renamed) in desk.settings.weights_used)
    assert [spec.context_length for spec in specs] == [1024]


def test_every_control_is_named_and_reached_by_tab(desk: Desk, hub: FakeHub) -> None:
    tiny_gguf.write(desk.profile.weights / "Own-Q8_0.gguf")
    open_page(desk)
    page = desk.window.hub.page
    desk.wait(lambda: any(key.startswith("installed/") for key in keys(desk)))
    for control in page.findChildren(QAbstractButton) + page.findChildren(QLineEdit):
        if control.isVisible():
            assert control.accessibleName(), control.objectName()
            assert control.objectName()
    search_field = desk.find(QLineEdit, "weights.search")
    search_field.setFocus()
    seen: list[str] = []
    for _ in range(60):
        focus = QApplication.focusWidget()
        assert focus is not None
        seen.append(focus.objectName())
        QTest.keyClick(focus, Qt.Key.Key_Tab)
        if len(seen) > 1 and QApplication.focusWidget() is search_field:
            break
    lead = "weights.download"
    assert any(name == lead or name.startswith(f"{lead}.") for name in seen)
    assert "weights.all" in seen
    assert "weights.use.Own-Q8_0" in seen
    assert "weights.more.Own-Q8_0" in seen
    assert "weights.use_guide" in seen or not any(key == "guide" for key in keys(desk))


def many_results(desk: Desk, repositories: int, files: int) -> None:
    """Search results with all files open, without a hub."""
    store = desk.window.hub.store
    labels = ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
    for number in range(repositories):
        name = f"maker{number}/Repository-{number}-GGUF"
        store.results.append(
            RepositorySummary(
                name, f"maker{number}", name.split("/")[1], 1000 + number, 1, False, "mit", ""
            )
        )
        quantisations = tuple(
            Quantisation(
                f"{labels[n % 6]}",
                f"file-{n}-{labels[n % 6]}.gguf",
                (HubFile(f"file-{n}-{labels[n % 6]}.gguf", (n + 1) * 400_000_000),),
            )
            for n in range(files)
        )
        store.repositories[name] = Repository(
            name, "0" * 40, "mit", False, ("en",), quantisations, url="x"
        )
        store.open_repositories.add(name)
    store.words = "many"


def slowest_frame_ms(desk: Desk, steps: int) -> tuple[float, float]:
    """Median and slowest of turning the wheel through the list, layout and painting included."""
    view = desk.window.hub.page.list
    bar = view.verticalScrollBar()
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        bar.setValue(bar.value() + 120)
        QApplication.processEvents()
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    return times[len(times) // 2], times[-1]


def test_a_long_list_makes_few_controls(desk: Desk) -> None:
    open_page(desk)
    many_results(desk, 500, 30)
    page = desk.window.hub.page
    page.refresh()
    rows: list[Row] = page.list.rows()
    assert len(rows) > 15_000
    median, _slowest = slowest_frame_ms(desk, 60)
    # The strict measure is a benchmark: this one only notices a list that builds everything.
    assert median < 100
    assert len(page.list.findChildren(RowWidget)) < 60


def test_a_thousand_files_open_at_once(desk: Desk) -> None:
    open_page(desk)
    store = desk.window.hub.store
    store.entries = [
        Entry(Path(f"/drive/weights-{n}.gguf"), "file", f"Weights {n}", 4_000_000_000, "ready")
        for n in range(1000)
    ]
    began = time.perf_counter()
    desk.window.hub.page.refresh()
    QApplication.processEvents()
    assert time.perf_counter() - began < 1.0
    assert sum(key.startswith("installed/") for key in keys(desk)) == 1000


def test_unfinished_downloads_of_an_earlier_run_are_told(
    qtbot: QtBot, tmp_path: Path, hub: FakeHub
) -> None:
    weights = Desk.weights(tmp_path / "files")
    hub.rate = 300_000
    first = Desk(qtbot, tmp_path / "profile", weights_path=str(weights))
    first.window.hub.make_room = lambda: room_of(first, hub)
    open_page(first)
    store = first.window.hub.store
    store.queue.get(REPOSITORY, "Q8_0")
    first.wait(lambda: bool(store.downloads) and store.downloads[0].done_bytes > 0)
    first.close()
    hub.rate = 0
    second = Desk(qtbot, tmp_path / "profile")
    second.window.hub.make_room = lambda: room_of(second, hub)
    line = second.find(QWidget, "sidebar.connections")
    second.wait(lambda: "1 paused" in line.accessibleName())
    line.setFocus()
    QTest.keyClick(line, Qt.Key.Key_Space)
    later = second.window.hub.store
    second.wait(lambda: f"download/{later.downloads[0].id}" in keys(second))
    click(second, f"weights.resume.{later.downloads[0].id}")
    second.wait(lambda: later.downloads[0].state == "done")
    second.close()


@pytest.fixture
def fresh(qtbot: QtBot, tmp_path: Path, hub: FakeHub) -> Iterator[Desk]:
    """A window on a profile that nobody has used."""
    made = Desk(qtbot, tmp_path / "profile")
    made.window.hub.make_room = lambda: room_of(made, hub)
    yield made
    if not made.closed:
        made.close()


def test_first_start_to_chat_in_two_clicks(
    fresh: Desk, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(64 * 10**9, 60 * 10**9, 8, 500 * 10**9)
    monkeypatch.setattr(Machine, "here", classmethod(lambda *_a, **_k: machine))
    fresh.wait(lambda: fresh.window.findChild(QWidget, "first") is not None)
    store = fresh.window.hub.store
    fresh.wait(lambda: store.recommended() is not None)
    found = store.recommended()
    assert found is not None
    fill(hub.folder, found.entry.repository, found.choice.label)
    get = fresh.find(QWidget, "first.get")
    fresh.wait(lambda: found.entry.title in get.accessibleDescription())
    QTest.mouseClick(get, Qt.MouseButton.LeftButton)
    toast = fresh.window.page.toast
    fresh.wait(lambda: toast.isVisible() and toast.text.endswith("is ready"))
    fresh.find(QAbstractButton, "toast.action").click()
    fresh.wait(lambda: fresh.engine.loaded is not None)
    fresh.wait(lambda: found.choice.label in fresh.settings.weights_path)
    fresh.say("count 2")
    assert fresh.texts()[-1] == ("assistant", "0 1")


def test_first_start_with_the_guide(fresh: Desk) -> None:
    fresh.wait(lambda: fresh.window.findChild(QWidget, "first") is not None)
    ways = [w for w in ("first.guide", "first.get") if fresh.window.findChild(QWidget, w)]
    first = fresh.find(QWidget, ways[0])
    fresh.wait(first.hasFocus)
    if ways[0] == "first.guide":
        QTest.keyClick(first, Qt.Key.Key_Return)
        fresh.wait(fresh.window.page.composer.isVisible)


def spoken(interface: QAccessibleInterface) -> Iterator[tuple[str, str, bool]]:
    """Identifier, name and whether it takes the focus, of everything that a reader can reach."""
    state = interface.state()
    found = interface.object()
    if not bool(state.invisible):
        name = interface.text(QAccessible.Text.Name)
        yield (found.objectName(), name, bool(state.focusable))
        for at in range(interface.childCount()):
            yield from spoken(interface.child(at))


def test_a_screen_reader_finds_a_name_for_every_control(desk: Desk, hub: FakeHub) -> None:
    tiny_gguf.write(desk.profile.weights / "Own-Q8_0.gguf")
    open_page(desk)
    search(desk, "tiny")
    desk.wait(lambda: f"result/{REPOSITORY}" in keys(desk))
    desk.window.hub.store.toggle(REPOSITORY)
    desk.wait(lambda: any(key.startswith("file/") for key in keys(desk)))
    for part in (desk.window.hub.page, desk.window.hub.panel):
        interface = QAccessible.queryAccessibleInterface(part)
        told = list(spoken(interface))
        nameless = [name for name, words, focusable in told if focusable and not words]
        assert nameless == []
        assert len(told) > 8
    names = [words for _, words, _ in spoken(QAccessible.queryAccessibleInterface(page_of(desk)))]
    assert any("Runs well" in words or "Runs slowly" in words for words in names)
    assert any(words.startswith("Download: Q4_K_M") for words in names)


def page_of(desk: Desk) -> QWidget:
    return desk.window.hub.page
