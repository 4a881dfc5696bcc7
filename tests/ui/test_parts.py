"""Toast, sides, find bar, sampler form, focus ring, single instance."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QRect, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPushButton, QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot

from desktop_app.inference.sampling import Sampling
from desktop_app.ui.controls import FocusRing
from desktop_app.ui.find_bar import FindBar
from desktop_app.ui.sampling_form import SamplingForm
from desktop_app.ui.sides import NARROW_PX, Sides
from desktop_app.ui.single_instance import SingleInstance
from desktop_app.ui.toast import Toast


def test_a_toast_shows_the_newest_and_acts_once(qtbot: QtBot) -> None:
    host = QWidget()
    qtbot.addWidget(host)
    host.resize(600, 400)
    toast = Toast(host, lambda: QRect(0, 0, 600, 400))
    host.show()
    undone: list[str] = []
    toast.tell("Deleted version 1", "Undo", lambda: undone.append("first"))
    toast.tell("Deleted version 2 and 14 below", "Undo", lambda: undone.append("second"))
    assert toast.text == "Deleted version 2 and 14 below"
    assert abs(toast.geometry().center().x() - 300) <= 1
    assert toast.geometry().bottom() <= 400
    button = toast.findChild(QPushButton, "toast.action")
    assert isinstance(button, QPushButton)
    button.click()
    button.click()
    assert undone == ["second"]
    qtbot.waitUntil(lambda: not toast.isVisible())


def test_a_long_toast_wraps_inside_a_narrow_window(qtbot: QtBot) -> None:
    host = QWidget()
    qtbot.addWidget(host)
    host.resize(420, 400)
    toast = Toast(host, lambda: QRect(0, 0, 420, 400))
    host.show()
    toast.tell("The file is damaged and could not be loaded. " * 4, "Choose other weights")
    assert host.rect().contains(toast.geometry())
    assert toast.height() > 60


def make_sides(qtbot: QtBot) -> tuple[Sides, QWidget, QWidget]:
    sidebar, page, dock = QWidget(), QWidget(), QWidget()
    sides = Sides(sidebar, page, dock)
    qtbot.addWidget(sides)
    sides.resize(1280, 800)
    sides.show()
    return sides, sidebar, dock


def test_on_a_narrow_window_the_sides_lie_over_the_page(qtbot: QtBot) -> None:
    sides, sidebar, dock = make_sides(qtbot)
    assert sidebar.isVisible()
    assert dock.isVisible()
    sides.resize(NARROW_PX - 1, 800)
    assert not sidebar.isVisible()
    assert not dock.isVisible()
    sides.show_sidebar(True)
    assert sidebar.isVisible()
    sides.show_dock(True)
    assert dock.isVisible()
    assert not sidebar.isVisible()
    assert sides.close_overlay()
    assert not dock.isVisible()
    sides.resize(1280, 800)
    assert sidebar.isVisible()
    assert dock.isVisible()


def test_what_was_hidden_stays_hidden_after_a_narrow_time_and_a_restart(qtbot: QtBot) -> None:
    sides, _, dock = make_sides(qtbot)
    sides.show_dock(False)
    sides.resize(700, 800)
    sides.resize(1280, 800)
    assert not dock.isVisible()
    again, _, dock_again = make_sides(qtbot)
    again.restore(sides.state())
    assert not dock_again.isVisible()
    again.restore({"dock": "yes", "sidebar_px": -4})
    assert not dock_again.isVisible()


def test_find_steps_through_the_messages_and_wraps(qtbot: QtBot) -> None:
    bar = FindBar(lambda: [(1, "A rate"), (2, "nothing"), (3, "the RATE again")])
    qtbot.addWidget(bar)
    found: list[int] = []
    bar.found.connect(found.append)
    bar.start()
    QTest.keyClicks(bar.field, "rate")
    QTest.keyClick(bar.field, Qt.Key.Key_Return)
    QTest.keyClick(bar.field, Qt.Key.Key_Return)
    QTest.keyClick(bar.field, Qt.Key.Key_Return)
    QTest.keyClick(bar.field, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    assert found == [1, 3, 1, 3]


def test_sliders_and_numbers_say_the_same_and_tell_only_the_users_changes(qtbot: QtBot) -> None:
    form = SamplingForm()
    qtbot.addWidget(form)
    told: list[Sampling] = []
    form.changed.connect(told.append)
    form.show_sampling(Sampling(temperature=0.75, seed=5))
    assert told == []
    row = form._rows["temperature"]
    assert row.slider.value() == 15
    row.slider.setValue(20)
    assert told[-1].temperature == 1.0
    assert told[-1].seed == 5
    row.number.setValue(0.33)
    assert told[-1].temperature == 0.33
    form._seed.setValue(-1)
    assert told[-1].seed is None


def test_the_focus_ring_is_for_the_keyboard_only(qtbot: QtBot, qapp: QApplication) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    column = QVBoxLayout(window)
    first, second = QPushButton("one"), QPushButton("two")
    column.addWidget(first)
    column.addWidget(second)
    ring = FocusRing(qapp)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    shown: list[bool] = []

    def look() -> None:
        shown.append(ring.isVisible())

    first.setFocus(Qt.FocusReason.MouseFocusReason)
    look()
    QTest.keyClick(first, Qt.Key.Key_Tab)
    assert second.hasFocus()
    look()
    assert ring.geometry().contains(second.geometry())
    QTest.mouseClick(first, Qt.MouseButton.LeftButton)
    first.setFocus(Qt.FocusReason.MouseFocusReason)
    look()
    assert shown == [False, True, False]
    ring.deleteLater()


def test_a_second_start_raises_the_first_window(qtbot: QtBot, tmp_path: Path) -> None:
    first = SingleInstance(tmp_path)
    assert not first.raised_other()
    first.listen()
    second = SingleInstance(tmp_path)
    with qtbot.waitSignal(first.raise_wanted):
        assert second.raised_other()
    other_profile = SingleInstance(tmp_path / "other")
    assert not other_profile.raised_other()
    assert not other_profile.raised_other(patience_s=0.2)
    first.close()
    third = SingleInstance(tmp_path)
    assert not third.raised_other()
    third.listen()
    third.close()
