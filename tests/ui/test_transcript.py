"""The transcript: what is on screen, what stands still, what is asked for, what is copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QAction, QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QApplication, QPushButton
from pytestqt.qtbot import QtBot

from desktop_app.ui import maths, theme
from desktop_app.ui.row import Row
from desktop_app.ui.row_menu import message_menu
from desktop_app.ui.row_view import Elsewhere, RowAction, RowState, RowView
from desktop_app.ui.transcript import Transcript
from tests.ui.sample_rows import mixed_rows, picture_rows, state_rows


@pytest.fixture
def view(qtbot: QtBot) -> Iterator[Transcript]:
    """A transcript on screen, 728 × 690."""
    made = Transcript()
    qtbot.addWidget(made)
    made.resize(728, 690)
    made.show()
    qtbot.waitExposed(made)
    yield made
    maths.maths().wait()
    # Qt deletes later than pytest-qt asks for: the next test should not style this view again.
    made.close()
    made.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


def row(view: Transcript, message_id: int) -> Row:
    found = view.row_of(message_id)
    assert found is not None
    return found


def button(view: Transcript, message_id: int, identifier: str) -> QAbstractButton:
    found = row(view, message_id).findChildren(QAbstractButton, identifier)
    shown = [one for one in found if not one.isHidden()]
    assert len(shown) == 1, identifier
    return shown[0]


def top_of(view: Transcript, message_id: int) -> int:
    return row(view, message_id).y()


def text_point(view: Transcript, message_id: int, x: float, y: float) -> QPoint:
    """A point of the viewport over a message's text, from its top left."""
    widget = row(view, message_id)
    assert widget.content is not None
    origin = widget.content.part_origin(1)
    return QPoint(round(widget.left + origin.x() + x), round(widget.y() + origin.y() + y))


def test_only_rows_on_screen_are_widgets(view: Transcript) -> None:
    view.set_rows(mixed_rows(2000))
    view.scroll_to_end()
    assert 1 <= len(view.findChildren(Row)) <= 25
    assert view.row_of(2000) is not None
    assert view.row_of(1) is None
    for _step in range(60):
        view.verticalScrollBar().setValue(view.verticalScrollBar().value() - 500)
    assert len(view.findChildren(Row)) <= 40


def test_rows_stand_below_each_other_without_gap(view: Transcript) -> None:
    view.set_rows(mixed_rows(40))
    view.scroll_to_end()
    boxes = sorted((one.y(), one.height()) for one in view.findChildren(Row) if one.isVisible())
    assert len(boxes) > 1
    for (y, height), (below, _) in pairwise(boxes):
        assert abs(y + height - below) <= 1


def test_scrolling_up_through_guesses_does_not_jump(view: Transcript) -> None:
    view.set_rows(mixed_rows(300))
    view.scroll_to_end()
    bar = view.verticalScrollBar()
    for _step in range(80):
        shown = min(
            (one for one in view.findChildren(Row) if one.isVisible()),
            key=lambda one: abs(one.y() - 100),
        )
        message_id, y = shown.message_id, shown.y()
        bar.setValue(bar.value() - 40)
        assert abs(top_of(view, message_id) - (y + 40)) <= 1


def test_growing_reply_keeps_the_end_in_view_only_when_it_was(view: Transcript) -> None:
    rows = picture_rows()
    view.set_rows(rows)
    view.scroll_to_end()
    text = rows[-1].text
    for _step in range(30):
        text += "\n\nAnother paragraph of the reply."
        view.stream(4, text)
    bar = view.verticalScrollBar()
    assert bar.value() == bar.maximum()
    bar.setValue(bar.maximum() - 300)
    place, last = view.position(), bar.value()
    for _step in range(10):
        text += "\n\nAnother paragraph of the reply."
        view.stream(4, text)
    assert bar.value() == last
    assert view.position() == place
    assert bar.maximum() > last + 300


def test_stream_shows_the_same_as_set_rows(view: Transcript) -> None:
    rows = picture_rows()
    view.set_rows(rows)
    text = rows[1].text + "\n\n" + rows[3].text
    for end in range(0, len(text), 7):
        view.stream(4, text[:end])
    view.stream(4, text)
    content = row(view, 4).content
    assert content is not None
    streamed = [piece.block for piece in content.body.pieces]
    view.set_rows([])
    view.set_rows([*rows[:3], replace(rows[3], text=text)])
    again = row(view, 4).content
    assert again is not None
    assert streamed == [piece.block for piece in again.body.pieces]


def test_switching_a_version_keeps_the_message_in_place(view: Transcript) -> None:
    rows = mixed_rows(60)
    view.set_rows(rows)
    view.set_position(31, -200)
    before = top_of(view, 31)
    other = [replace(one, message_id=one.message_id + 1000) for one in mixed_rows(60)[30:40]]
    view.set_rows([*rows[:30], *other], keep=1031)
    assert top_of(view, 1031) == before


def test_rows_changing_above_keep_what_is_read(view: Transcript) -> None:
    rows = mixed_rows(60)
    view.set_rows(rows)
    view.set_position(31, 20)
    before = view.position()
    longer = replace(rows[3], text=rows[3].text + "\n\nMore.\n\nAnd more.")
    view.set_rows([*rows[:3], longer, *rows[4:]])
    assert view.position() == before
    assert top_of(view, 31) == -20


def test_position_round_trip(view: Transcript) -> None:
    view.set_rows(mixed_rows(200))
    view.scroll_to_end()
    view.set_position(101, 37)
    assert view.position() == (101, 37)
    view.set_rows([])
    assert view.position() == (0, 0)
    view.set_position(5, 3)


def test_another_width_keeps_what_is_read(view: Transcript) -> None:
    view.set_rows(mixed_rows(100))
    view.set_position(52, 0)
    view.resize(500, 600)
    assert view.position()[0] == 52
    view.resize(900, 700)
    assert view.position()[0] == 52


def test_header_sticks_while_a_long_message_scrolls(view: Transcript) -> None:
    view.set_rows([RowView(1, "assistant", "Llama", text="A paragraph.\n\n" * 100)])
    view.set_position(1, 400)
    header = row(view, 1).header
    assert header.y() + row(view, 1).y() == 0
    view.set_position(1, 0)
    assert header.y() == 0


def test_pager_asks_for_the_next_version(view: Transcript, qtbot: QtBot) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    assert not button(view, 2, "message.previous").isEnabled()
    with qtbot.waitSignal(view.version_requested) as asked:
        button(view, 2, "message.next").click()
    assert asked.args == [2, 2]
    hidden = row(view, 3).findChild(QAbstractButton, "message.next")
    assert hidden is not None
    assert hidden.isHidden()


@pytest.mark.parametrize(
    ("identifier", "signal", "arguments"),
    [
        ("message.again", "again_requested", [2]),
        ("message.copy", "copy_requested", [2]),
        ("message.star", "star_requested", [2, True]),
    ],
)
def test_actions(
    view: Transcript, qtbot: QtBot, identifier: str, signal: str, arguments: list[object]
) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    with qtbot.waitSignal(getattr(view, signal)) as asked:
        button(view, 2, identifier).click()
    assert asked.args == arguments


def test_copy_takes_the_source(view: Transcript) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    button(view, 2, "message.copy").click()
    assert QGuiApplication.clipboard().text() == picture_rows()[1].text


def test_states_offer_their_next_step(view: Transcript, qtbot: QtBot) -> None:
    view.resize(728, 1200)
    view.set_rows(state_rows())
    view.set_position(10, 0)
    with qtbot.waitSignal(view.continue_requested) as asked:
        button(view, 13, "message.continue").click()
    assert asked.args == [13]
    with qtbot.waitSignal(view.again_requested) as asked:
        button(view, 15, "message.stale").click()
    assert asked.args == [15]
    with qtbot.waitSignal(view.retry_requested) as asked:
        button(view, 16, "message.retry").click()
    assert asked.args == [16]


def test_failure_actions_are_the_given_ones(view: Transcript, qtbot: QtBot) -> None:
    failed = replace(
        state_rows()[6], actions=(RowAction("smaller", "Use smaller context", main=True),)
    )
    view.set_rows([failed])
    with qtbot.waitSignal(view.failure_action) as asked:
        button(view, 16, "message.action.smaller").click()
    assert asked.args == [16, "smaller"]
    view.update_row(replace(failed, state=RowState.WRITING))
    gone = row(view, 16).findChildren(QPushButton, "message.action.smaller")
    assert all(one.isHidden() for one in gone)


def test_notice_shows_the_other_version(view: Transcript, qtbot: QtBot) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    with qtbot.waitSignal(view.elsewhere_requested) as asked:
        button(view, 1, "message.show").click()
    assert asked.args == [1, 1]
    many = replace(picture_rows()[0], elsewhere=(Elsewhere(1, 12), Elsewhere(3, 19)))
    view.update_row(many)
    assert (
        "31 messages continue on 2 other versions"
        in button(view, 1, "message.show").accessibleName()
    )


def test_editing_a_prompt(view: Transcript, qtbot: QtBot) -> None:
    view.set_rows(picture_rows())
    view.start_editing(3)
    editor = row(view, 3).editor
    assert editor is not None
    assert editor.edit.hasFocus()
    editor.edit.set_text("Another question")
    assert view.editing() == {3: "Another question"}
    with qtbot.waitSignal(view.edit_saved) as saved:
        QTest.keyClick(editor.edit, Qt.Key.Key_Return)
    assert saved.args == [3, "Another question", "ask-again"]
    assert view.editing() == {}
    assert row(view, 3).editor is None


def test_editing_a_reply_breaks_lines_and_saves_both_ways(view: Transcript, qtbot: QtBot) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    view.start_editing(2)
    editor = row(view, 2).editor
    assert editor is not None
    editor.edit.set_text("One")
    QTest.keyClick(editor.edit, Qt.Key.Key_Return)
    QTest.keyClicks(editor.edit, "Two")
    with qtbot.waitSignal(view.edit_saved) as saved:
        button(view, 2, "message.editor.second").click()
    assert saved.args == [2, "One\nTwo", "as-version"]


def test_escape_leaves_and_unsaved_text_survives_scrolling(view: Transcript) -> None:
    view.set_rows(mixed_rows(200))
    view.set_position(101, 0)
    view.start_editing(101)
    editor = row(view, 101).editor
    assert editor is not None
    editor.edit.set_text("unsaved")
    view.scroll_to_end()
    view.verticalScrollBar().setValue(0)
    view.set_rows(mixed_rows(200))
    view.set_position(101, 0)
    editor = row(view, 101).editor
    assert editor is not None
    assert editor.text == "unsaved"
    QTest.keyClick(editor.edit, Qt.Key.Key_Escape)
    assert row(view, 101).editor is None
    assert view.editing() == {}


def test_unsaved_text_survives_another_path_and_focus_moves_on(view: Transcript) -> None:
    rows = picture_rows()
    view.set_rows(rows)
    view.start_editing(3)
    editor = row(view, 3).editor
    assert editor is not None
    editor.edit.set_text("unsaved")
    view.set_rows([rows[0], replace(rows[1], message_id=22)])
    assert view.editing() == {3: "unsaved"}
    assert row(view, 22).hasFocus()
    view.set_rows(rows)
    editor = row(view, 3).editor
    assert editor is not None
    assert editor.text == "unsaved"


def test_a_long_message_gives_layouts_back(view: Transcript) -> None:
    view.set_rows([RowView(1, "assistant", text="A paragraph of the text.\n\n" * 2000)])
    bar = view.verticalScrollBar()
    content = row(view, 1).content
    assert content is not None
    while content.body.parse_more():
        pass
    view.relayout()
    for step in range(0, 20_000, 400):
        bar.setValue(step)
    built = sum(piece.is_built for piece in content.body.pieces)
    assert 20 < built < 500


def test_a_growing_editor_keeps_its_buttons_in_view(view: Transcript) -> None:
    view.set_rows(mixed_rows(40))
    view.set_position(21, 0)
    lowest = max(
        (one for one in view.findChildren(Row) if one.isVisible()), key=lambda one: one.y()
    )
    view.start_editing(lowest.message_id)
    editor = lowest.editor
    assert editor is not None
    for _line in range(8):
        editor.edit.insertPlainText("another line\n")
    assert lowest.geometry().bottom() <= view.viewport().height()
    assert editor.text.count("another line") == 8


def test_a_live_reply_is_not_edited(view: Transcript) -> None:
    view.set_rows(picture_rows())
    view.start_editing(4)
    assert row(view, 4).editor is None


def test_dragging_selects_over_messages(view: Transcript) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    start, end = text_point(view, 1, 0, 12), text_point(view, 3, 90, 12)
    QTest.mousePress(view.viewport(), Qt.MouseButton.LeftButton, pos=start)
    QTest.mouseMove(view.viewport(), QPoint(start.x() + 30, start.y() + 40))
    QTest.mouseMove(view.viewport(), end)
    QTest.mouseRelease(view.viewport(), Qt.MouseButton.LeftButton, pos=end)
    text = view.selected_text()
    assert text.startswith("I’d borrow €240,000")
    assert "| 20 years | €1,441.74 | €106,017 |" in text  # a whole message: as it was written
    assert text.rstrip().endswith("Write it as a")
    row(view, 3).setFocus()
    QTest.keyClick(row(view, 3), Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QGuiApplication.clipboard().text() == text


def test_mouse_events_of_a_row_reach_the_selection(view: Transcript) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    widget = row(view, 3)
    start = text_point(view, 3, 0, 12) - widget.pos()
    QTest.mousePress(widget, Qt.MouseButton.LeftButton, pos=start)
    QTest.mouseMove(widget, start + QPoint(200, 0))
    QTest.mouseRelease(widget, Qt.MouseButton.LeftButton, pos=start + QPoint(200, 0))
    assert view.selected_text().startswith("Write it as a Python")
    assert widget.hasFocus()


def test_a_narrow_header_keeps_its_menu_and_nothing_overlaps(view: Transcript) -> None:
    view.resize(380, 690)
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    for message_id in (1, 2, 3):
        header = row(view, message_id).header
        boxes = [one.geometry() for one in header.findChildren(QAbstractButton) if one.isVisible()]
        for number, box in enumerate(boxes):
            assert not any(box.intersects(other) for other in boxes[number + 1 :])
        assert header.buttons["more"].isVisible()


def test_selection_holds_rows_that_were_never_on_screen(view: Transcript) -> None:
    rows = mixed_rows(400)
    view.set_rows(rows)
    view.set_position(1, 0)
    view.select_all()
    text = view.selected_text()
    for one in rows[1:-1]:
        assert one.text.strip("\n") in text


def test_double_click_selects_a_word(view: Transcript) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    QTest.mouseDClick(view.viewport(), Qt.MouseButton.LeftButton, pos=text_point(view, 3, 4, 12))
    assert view.selected_text() == "Write"


def test_links_ask_and_open_nothing(view: Transcript, qtbot: QtBot) -> None:
    view.set_rows([RowView(1, "assistant", text="[here](https://example.org/x) and text")])
    point = text_point(view, 1, 8, 12)
    with qtbot.waitSignal(view.link_activated) as asked:
        QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=point)
    assert asked.args == ["https://example.org/x"]


def test_code_button_copies_the_whole_block(view: Transcript) -> None:
    code = "\n".join(f"line_{n} = {n}" for n in range(120))
    view.set_rows([RowView(1, "assistant", text=f"```python\n{code}\n```")])
    view.set_position(1, 0)
    content = row(view, 1).content
    assert content is not None
    box = content.body.code_button(0)
    point = text_point(view, 1, box.center().x(), box.center().y())
    QTest.mouseMove(view.viewport(), point)
    QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=point)
    assert QGuiApplication.clipboard().text() == code


def test_the_menu_reaches_links_and_code_by_keyboard(view: Transcript) -> None:
    text = "[a](https://a.org) and https://b.org\n\n```sh\nls\n```"
    shown = RowView(1, "assistant", text=text, below=14, versions=2)
    view.set_rows([shown])
    content = row(view, 1).content
    assert content is not None
    asked: list[tuple[str, object]] = []
    menu = message_menu(
        view,
        shown,
        lambda verb, value: asked.append((verb, value)),
        links=content.body.links(),
        codes=content.body.codes(),
    )
    actions = {one.objectName(): one for one in menu.findChildren(QAction)}
    actions["message.menu.link.2"].trigger()
    actions["message.menu.copy_code.1"].trigger()
    assert asked == [("link", "https://b.org"), ("copy_code", 1)]
    assert actions["message.menu.delete"].text() == "Delete this version and 14 below"
    view.act(1, "copy_code", 1)
    assert QGuiApplication.clipboard().text() == "ls"


def test_found_words_are_marked_and_come_into_view(view: Transcript, look: theme.Theme) -> None:
    text = "A paragraph.\n\n" * 80 + "The needle stands here."
    view.set_rows([*mixed_rows(20), RowView(99, "assistant", text=text)])
    view.set_position(1, 0)
    view.set_find("NEEDLE")
    view.reveal(99)
    widget = row(view, 99)
    assert widget.content is not None
    piece = widget.content.body.pieces[-1]
    top = widget.y() + widget.content.boxes.body_top + widget.content.body.top(80)
    assert piece.block.plain() == "The needle stands here."
    assert 0 < top < 690
    ground = look.color("ochresoft")
    image = view.viewport().grab().toImage()
    row_pixels = [image.pixelColor(x, round(top) + 4) for x in range(60, 300)]
    assert ground in row_pixels
    view.set_find("")
    image = view.viewport().grab().toImage()
    assert ground not in [image.pixelColor(x, round(top) + 4) for x in range(60, 300)]


def test_keys_walk_the_messages(view: Transcript) -> None:
    view.set_rows(mixed_rows(60))
    view.scroll_to_end()
    view.focus_current()
    assert view.current() == 60
    QTest.keyClick(row(view, 60), Qt.Key.Key_Up)
    assert view.current() == 59
    assert row(view, 59).hasFocus()
    QTest.keyClick(row(view, 59), Qt.Key.Key_Home)
    assert view.current() == 1
    QTest.keyClick(row(view, 1), Qt.Key.Key_Tab)
    focused = QApplication.focusWidget()
    assert focused is not None
    assert row(view, 1).isAncestorOf(focused)
    assert focused.objectName().startswith("message.")


def test_reasoning_is_folded_and_opens(view: Transcript) -> None:
    view.set_rows([state_rows()[-1]])
    content = row(view, 17).content
    assert content is not None
    before = row(view, 17).height()
    button(view, 17, "message.reasoning").click()
    assert content.reasoning_open
    assert row(view, 17).height() > before + 40


def test_names_for_screen_readers(view: Transcript) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    assert view.accessibleIdentifier() == "transcript"
    assert row(view, 2).accessibleName() == "Llama 3.2 3B, 14:02, version 1 of 3"
    assert "€188 less" in row(view, 2).accessibleDescription()
    for one in row(view, 2).findChildren(QAbstractButton):
        if not one.isHidden():
            assert one.accessibleName(), one.objectName()
            assert one.accessibleIdentifier() == one.objectName()


def test_theme_scale_and_language_relayout(view: Transcript, look: theme.Theme) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    before = row(view, 2).height()
    look.set_mode("dark")
    assert view.grab().toImage().pixelColor(715, 3) == look.color("canvas")
    look.set_text_scale(1.5)
    assert row(view, 2).height() > before
    look.set_text_scale(1.0)


def test_jump_button_shows_away_from_the_end(view: Transcript, qtbot: QtBot) -> None:
    view.set_rows(mixed_rows(60))
    view.scroll_to_end()
    jump = view.findChild(QAbstractButton, "transcript.end")
    assert jump is not None
    assert jump.isHidden()
    view.verticalScrollBar().setValue(0)
    assert not jump.isHidden()
    jump.click()
    assert view.is_at_end
    assert jump.isHidden()


def test_hover_shows_actions_on_one_row_only(view: Transcript) -> None:
    view.set_rows(picture_rows())
    view.set_position(1, 0)
    QTest.mouseMove(view.viewport(), text_point(view, 2, 5, 5))
    assert row(view, 2).header.buttons["edit"].revealed
    assert not row(view, 1).header.buttons["edit"].revealed
    QTest.mouseMove(view.viewport(), text_point(view, 1, 5, 5))
    assert not row(view, 2).header.buttons["edit"].revealed
    assert row(view, 1).header.buttons["edit"].revealed


def test_an_image_is_never_fetched_and_a_formula_fails_to_its_source(view: Transcript) -> None:
    text = "![x](file:///etc/hostname) ![y](https://example.org/y.png) and $\\frac{$"
    view.set_rows([RowView(1, "assistant", text=text)])
    content = row(view, 1).content
    assert content is not None
    point = content.place_at(0, QPointF(2000, 2000))
    assert point.spot.position > 0
    shown = content.body.copy_text()
    assert "file:///etc/hostname" in shown
    assert "https://example.org/y.png" in shown
