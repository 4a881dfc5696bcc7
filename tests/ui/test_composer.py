"""The composer: keys, growth, an open input method, Stop, and what it drops when narrow."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QMimeData, Qt, QUrl
from PySide6.QtGui import QInputMethodEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from desktop_app.ui.composer import Composer
from desktop_app.ui.message_edit import COMMIT_WAIT_MS


@pytest.fixture
def composer(qtbot: QtBot) -> Composer:
    made = Composer()
    qtbot.addWidget(made)
    made.resize(680, 90)
    made.show_choices("Llama 3.2 3B", "Balanced", 1)
    made.show()
    qtbot.waitExposed(made)
    made.text.setFocus()
    return made


def preedit(composer: Composer, text: str, commit: str = "") -> None:
    event = QInputMethodEvent(text, [])
    if commit:
        event.setCommitString(commit)
    QApplication.sendEvent(composer.text, event)


def test_enter_sends_and_shift_enter_breaks_the_line(qtbot: QtBot, composer: Composer) -> None:
    sent: list[str] = []
    composer.submitted.connect(sent.append)
    QTest.keyClicks(composer.text, "one")
    QTest.keyClick(composer.text, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    QTest.keyClicks(composer.text, "two")
    QTest.keyClick(composer.text, Qt.Key.Key_Return)
    assert sent == ["one\ntwo"]
    # The page clears it once the message is taken: a send that failed loses nothing.
    assert composer.text.toPlainText() == "one\ntwo"


def test_blank_text_is_not_sent(composer: Composer) -> None:
    sent: list[str] = []
    composer.submitted.connect(sent.append)
    QTest.keyClicks(composer.text, "  ")
    QTest.keyClick(composer.text, Qt.Key.Key_Return)
    assert sent == []
    assert not composer.send_button.isEnabled()


def test_it_grows_to_ten_lines_and_shrinks_again(composer: Composer) -> None:
    one = composer.text.height()
    composer.text.setPlainText("\n".join("line" for _ in range(6)))
    six = composer.text.height()
    composer.text.setPlainText("\n".join("line" for _ in range(40)))
    most = composer.text.height()
    assert one < six < most
    assert most == composer.text.height_for(10)
    composer.clear()
    assert composer.text.height() == one


def test_an_open_syllable_is_sent_whole_once_it_is_committed(
    qtbot: QtBot, composer: Composer
) -> None:
    sent: list[str] = []
    composer.submitted.connect(sent.append)
    preedit(composer, "", commit="한")
    preedit(composer, "글")
    assert composer.send_button.isEnabled()
    QTest.keyClick(composer.text, Qt.Key.Key_Return)
    assert sent == []
    preedit(composer, "", commit="글")
    assert sent == ["한글"]


def test_a_silent_input_method_loses_nothing_and_its_late_echo_doubles_nothing(
    qtbot: QtBot, composer: Composer
) -> None:
    sent: list[str] = []
    composer.submitted.connect(sent.append)
    preedit(composer, "글")
    composer.send_button.click()
    preedit(composer, "")
    with qtbot.waitSignal(composer.submitted, timeout=COMMIT_WAIT_MS * 20):
        pass
    assert sent == ["글"]
    composer.clear()
    preedit(composer, "", commit="글")
    assert composer.text.toPlainText() == ""
    # A key in between means that the person typed it again.
    QTest.keyClick(composer.text, Qt.Key.Key_Left)
    preedit(composer, "", commit="글")
    assert composer.text.toPlainText() == "글"


def test_stop_takes_the_place_of_send(composer: Composer) -> None:
    stopped: list[bool] = []
    composer.stop_wanted.connect(lambda: stopped.append(True))
    composer.set_writing(True)
    assert composer.stop_button.isVisible()
    assert not composer.send_button.isVisible()
    composer.stop_button.click()
    assert stopped == [True]
    composer.set_writing(False)
    assert composer.send_button.isVisible()


def test_getting_narrow_it_drops_speed_then_numbers_then_the_preset(composer: Composer) -> None:
    composer.show_speed(14.2)
    composer.show_context(3212, 8192)

    def shown() -> list[str]:
        widgets = (
            ("preset", composer.preset),
            ("numbers", composer.findChild(type(composer._use), "composer.context")),
            ("speed", composer.findChild(type(composer._use), "composer.speed")),
        )
        return [name for name, widget in widgets if widget is not None and widget.isVisible()]

    seen: list[list[str]] = []
    for width in range(760, 380, -10):
        composer.resize(width, 90)
        if not seen or shown() != seen[-1]:
            seen.append(shown())
    assert seen == [["preset", "numbers", "speed"], ["preset", "numbers"], ["preset"], []]
    assert composer.send_button.isVisible()


def test_the_meter_warns_at_three_quarters_and_says_what_happens_near_the_end(
    composer: Composer,
) -> None:
    composer.show_context(7000, 10_000)
    assert not composer._warning.isVisible()
    assert composer._bar._role == "accent"
    composer.show_context(7500, 10_000)
    assert composer._bar._role == "star"
    composer.show_context(9000, 10_000)
    assert composer._bar._role == "claymark"
    assert composer._warning.text().endswith("The oldest messages will be left out.")


def test_files_dropped_on_the_text_are_left_to_the_window(composer: Composer) -> None:
    files = QMimeData()
    files.setUrls([QUrl.fromLocalFile("/a/b.gguf")])
    files.setText("/a/b.gguf")
    words = QMimeData()
    words.setText("words")
    assert not composer.text.canInsertFromMimeData(files)
    assert composer.text.canInsertFromMimeData(words)


def test_up_in_an_empty_field_asks_for_the_last_message(composer: Composer) -> None:
    asked: list[bool] = []
    composer.edit_last_wanted.connect(lambda: asked.append(True))
    QTest.keyClick(composer.text, Qt.Key.Key_Up)
    QTest.keyClicks(composer.text, "text")
    QTest.keyClick(composer.text, Qt.Key.Key_Up)
    assert asked == [True]
