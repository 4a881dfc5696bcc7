"""The first start: everything stays here, and three ways to begin."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QPointF, QRect, QRectF, Qt, Signal
from PySide6.QtGui import QPainter, QPainterPath, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QMenu, QVBoxLayout, QWidget

from desktop_app.paths import starter_weights
from desktop_app.settings import Settings
from desktop_app.ui import icons, theme
from desktop_app.ui.controls import ChoiceButton, label, name_control
from desktop_app.ui.ways import Ways
from desktop_app.ui.weights_store import WeightsStore
from desktop_app.ui.weights_words import computer_words, verdict
from desktop_app.ui.words import tr
from desktop_app.weights.fit import size_text

_LEFT_PX = 96
_COLUMN_PX = 576
_LANGUAGES = {"auto": "settings.system", "en": "English", "ko": "한국어"}
_THEMES = {"auto": "settings.system", "light": "settings.light", "dark": "settings.dark"}


class _Grove(QWidget):
    """The drawing at the right: branches as in a conversation, the open path green."""

    # Lanes of (x, top, bottom, lane it leaves, height of the elbow); nodes every 54 px.
    _TRUNK = (249, 170)
    _BRANCHES = (
        (193, 170, 278, 249, 309, "edge"),
        (305, 224, 386, 249, 417, "edge"),
        (357, 278, 332, 305, 363, "edge"),
        (193, 386, 494, 249, 525, "edge"),
        (145, 386, 386, 193, 417, "edge"),
        (305, 494, 602, 249, 633, "edge"),
        (97, 494, 836, 0, 0, "line2"),
        (49, 494, 548, 97, 579, "line2"),
        (145, 494, 602, 97, 633, "line2"),
        (425, 386, 836, 0, 0, "line2"),
        (473, 386, 440, 425, 471, "line2"),
        (381, 494, 548, 425, 579, "line2"),
        (473, 548, 602, 425, 633, "line2"),
    )

    def paintEvent(self, _event: QPaintEvent) -> None:
        look = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), look.color("window"))
        painter.fillRect(0, 0, 1, self.height(), look.color("line"))
        painter.translate((self.width() - 520) / 2, 0)
        for x, top, bottom, into, elbow, role in self._BRANCHES:
            self._branch(painter, x, top, bottom, into, elbow, role)
        x, top = self._TRUNK
        painter.setPen(QPen(look.color("accent"), 2))
        painter.drawLine(QPointF(x, top), QPointF(x, self.height()))
        for y in range(top, self.height() + 54, 54):
            self._node(painter, x, y, is_user=_is_user(y) and y > top, role="accent")
        painter.setPen(QPen(look.color("accent"), 1.6))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawEllipse(QPointF(x, top), 9.5, 9.5)

    def _branch(
        self, painter: QPainter, x: int, top: int, bottom: int, into: int, elbow: int, role: str
    ) -> None:
        look = theme.current()
        path = QPainterPath(QPointF(x, top))
        if into:
            radius = 9.0
            side = radius if into > x else -radius
            path.lineTo(x, elbow - radius)
            path.quadTo(x, elbow, x + side, elbow)
            path.lineTo(into - side, elbow)
            path.quadTo(into, elbow, into, elbow + radius)
        else:
            path.lineTo(x, max(bottom, self.height()))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(look.color("edge" if role == "edge" else "line2"), 1.5))
        painter.drawPath(path)
        end = bottom if into else self.height()
        for y in range(top, end + 1, 54):
            self._node(painter, x, y, is_user=_is_user(y), role="edge")

    def _node(self, painter: QPainter, x: int, y: int, *, is_user: bool, role: str) -> None:
        look = theme.current()
        colour = look.color(role)
        if is_user:
            painter.setPen(QPen(colour, 1.6))
            painter.setBrush(look.color("window"))
            painter.drawRoundedRect(QRectF(x - 5, y - 5, 10, 10), 3, 3)
        else:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(colour)
            painter.drawEllipse(QPointF(x, y), 5.5, 5.5)


def _is_user(y: int) -> bool:
    """Rows of nodes take turns: a person's, a reply's."""
    return (y - 170) // 54 % 2 == 0


class FirstRun(QWidget):
    """Stands in place of the whole window until a way is chosen."""

    guide_wanted = Signal()
    get_wanted = Signal()
    file_wanted = Signal()

    def __init__(self, store: WeightsStore, settings: Settings) -> None:
        super().__init__()
        self._store = store
        self._settings = settings
        self.setProperty("surface", "canvas")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        name_control(self, "first", tr("first.title"))
        self._drawing = _Grove(self)
        self._ways = Ways("first", has_guide=starter_weights() is not None)
        self._ways.show_get_hint(tr("first.looking"))
        self._ways.guide_wanted.connect(self.guide_wanted)
        self._ways.get_wanted.connect(self.get_wanted)
        self._ways.file_wanted.connect(self.file_wanted)
        self._logo = label()
        self._language = ChoiceButton("first.language", tr("settings.language"), fixed=True)
        self._language.clicked.connect(lambda _on=False: self._choose_language())
        self._look = ChoiceButton("first.look", tr("settings.look"), fixed=True)
        self._look.clicked.connect(lambda _on=False: self._choose_look())
        self._language_icon, self._look_icon = label(), label()
        self._note = label("", "small")
        self._body = QWidget(self)
        self._lay_out()
        store.changed.connect(self._show_facts)
        theme.current().changed.connect(self._draw)
        self._draw()
        self._show_facts()
        self._show_choices()

    def _lay_out(self) -> None:
        brand = QHBoxLayout()
        brand.setSpacing(8)
        brand.addWidget(self._logo)
        brand.addWidget(label("Grove", "heading"), 1)
        foot = QHBoxLayout()
        foot.setSpacing(4)
        foot.setContentsMargins(0, 0, 0, 0)
        foot.addWidget(self._language_icon)
        foot.addWidget(self._language)
        foot.addSpacing(12)
        foot.addWidget(self._look_icon)
        foot.addWidget(self._look)
        foot.addWidget(self._note, 1)
        column = QVBoxLayout(self._body)
        column.setContentsMargins(0, 66, 0, 30)
        column.setSpacing(0)
        column.addLayout(brand)
        column.addStretch(2)
        column.addWidget(self._ways)
        column.addStretch(3)
        column.addLayout(foot)

    def focus_first(self) -> None:
        """The first way has the focus: Enter goes on."""
        self._ways.focus_first()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        wide = self.width() >= 1100
        right = 520 if wide else 0
        self._drawing.setVisible(wide)
        self._drawing.setGeometry(self.width() - right, 0, right, self.height())
        room = self.width() - right
        width = min(_COLUMN_PX, room - 48)
        left = _LEFT_PX if room >= _LEFT_PX + width + 24 else (room - width) // 2
        self._body.setGeometry(left, 0, width, self.height())

    def toast_area(self) -> QRect:
        """Where notices stand."""
        return self.rect().adjusted(0, 0, 0, -8)

    def _draw(self) -> None:
        self._logo.setPixmap(icons.pixmap("grove", "accent", 28))
        self._language_icon.setPixmap(icons.pixmap("languages", "text2", 16))
        self._look_icon.setPixmap(icons.pixmap("sun-moon", "text2", 16))
        self._drawing.update()

    def _show_facts(self) -> None:
        store = self._store
        if store.machine is not None:
            self._ways.show_computer(computer_words(store.machine))
        found = store.recommended()
        judged = verdict(found.fit) if found is not None else None
        if found is not None and judged is not None:
            size = size_text(found.choice.size_bytes)
            title = found.entry.title
            hint = tr("first.get_hint", title=title, size=size, verdict=judged.words)
            self._ways.show_get_hint(hint)
        elif store.suggestions:
            self._ways.show_get_hint(tr("first.get_hint_none"))

    # ---- language and appearance -----------------------------------------------------------------

    def _show_choices(self) -> None:
        self._language.set_choice(_name(_LANGUAGES[self._settings.language]))
        words = _name(_THEMES[self._settings.theme])
        self._look.set_choice(f"{tr('settings.look')}: {words}")

    def _choose_language(self) -> None:
        def chosen(key: str) -> None:
            if key != self._settings.language:
                self._settings.language = key
                self._note.setText(tr("settings.language_note"))

        self._choose(self._language, _LANGUAGES, self._settings.language, chosen)

    def _choose_look(self) -> None:
        def chosen(key: str) -> None:
            self._settings.theme = key
            theme.current().set_mode(key)  # type: ignore[arg-type]  # one of _THEMES

        self._choose(self._look, _THEMES, self._settings.theme, chosen)

    def _choose(
        self,
        button: ChoiceButton,
        choices: dict[str, str],
        current: str,
        chosen: Callable[[str], None],
    ) -> None:
        menu = QMenu(self)
        name_control(menu, f"{button.objectName()}.menu", button.accessibleName())
        for key, words in choices.items():
            action = menu.addAction(_name(words))
            action.setCheckable(True)
            action.setChecked(key == current)
            action.triggered.connect(lambda _on=False, key=key: chosen(key))
        button.open_menu(menu)
        menu.deleteLater()
        self._show_choices()
        try:
            self._settings.save()
        except OSError:
            pass  # a full disk is told when something of worth is to be written


def _name(words: str) -> str:
    return tr(words) if words.startswith("settings.") else words
