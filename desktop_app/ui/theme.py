"""Colours, fonts and the one style sheet of the window.

A theme file is a list of named roles; everything that paints asks the current `Theme` for a role
and repaints on `Theme.changed`.  The palette is set by us: ``setColorScheme`` does nothing on a
bare X11 server.  All of this runs on the main thread.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

from desktop_app.ui.assets import asset
from desktop_app.ui.style_sheet import style_sheet

Mode = Literal["auto", "light", "dark"]

_FONT_FILES: Final = ("Inter-Regular", "Inter-Medium", "Inter-SemiBold", "JetBrainsMono-Regular")
_LATE_FONT_FILES: Final = ("Inter-Italic", "Inter-SemiBoldItalic", "JetBrainsMono-SemiBold")
_CJK_FAMILIES: Final = {
    "ko": ("Noto Sans CJK KR", "Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo"),
    "ja": ("Noto Sans CJK JP", "Yu Gothic UI", "Hiragino Sans"),
    "zh": ("Noto Sans CJK SC", "Microsoft YaHei UI", "PingFang SC"),
    "en": ("Noto Sans CJK KR", "Malgun Gothic", "Apple SD Gothic Neo"),
}
_CODE_FAMILIES: Final = ("JetBrains Mono", "DejaVu Sans Mono", "Menlo", "Consolas")


@dataclass(frozen=True, slots=True)
class TextStyle:
    """Size and line height in px at 100 %, weight, and letter spacing in px."""

    size_px: float
    line_px: float
    weight: QFont.Weight = QFont.Weight.Normal
    spacing_px: float = 0.0
    code: bool = False


STYLES: Final[dict[str, TextStyle]] = {
    "title": TextStyle(30, 40, QFont.Weight.DemiBold, -0.6),
    "heading": TextStyle(15, 24, QFont.Weight.DemiBold, -0.1),
    "reading": TextStyle(15, 24, QFont.Weight.Normal, -0.1),
    "draft": TextStyle(14, 22),
    "table": TextStyle(14, 20),
    "interface": TextStyle(13, 20),
    "button": TextStyle(13, 20, QFont.Weight.Medium),
    "name": TextStyle(13, 20, QFont.Weight.DemiBold),
    "small": TextStyle(12, 16),
    "badge": TextStyle(12, 16, QFont.Weight.Medium),
    "hint": TextStyle(11, 16),
    "code": TextStyle(13, 20, code=True),
}


_HIGH_CONTRAST: Final = {"line2": "ctl", "text3": "text2", "dim": "text3"}
"""The quiet roles and what stands in their place where the platform asks for high contrast."""


def high_contrast_asked() -> bool:
    """Whether the platform asks for high contrast (Qt hears it from Windows, macOS, GNOME, KDE)."""
    hints = QGuiApplication.styleHints()  # what it gives lives no longer than this reference
    return hints.accessibility().contrastPreference() == Qt.ContrastPreference.HighContrast


@cache
def _roles(name: str) -> dict[str, QColor]:
    with asset("themes", f"{name}.toml").open("rb") as file:
        table = tomllib.load(file)
    sections = (value for value in table.values() if isinstance(value, dict))
    return {role: QColor(value) for section in sections for role, value in section.items()}


class Theme(QObject):
    """The colours and fonts in use; one for the application, see `install` and `current`."""

    changed = Signal()

    def __init__(
        self,
        mode: Mode = "auto",
        text_scale: float = 1.0,
        language: str = "en",
        *,
        sheet: bool = True,
    ) -> None:
        super().__init__()
        self._has_sheet = sheet
        self._mode: Mode = mode
        self._scale = text_scale
        self._language = language
        self._fonts: dict[tuple[str, bool], QFont] = {}
        self._roles = self._pick()
        hints = QGuiApplication.styleHints()
        hints.colorSchemeChanged.connect(self._scheme_changed)
        hints.accessibility().contrastPreferenceChanged.connect(self._scheme_changed)

    @property
    def mode(self) -> Mode:
        """What the user chose: ``"auto"`` follows the platform."""
        return self._mode

    @property
    def is_dark(self) -> bool:
        """Whether dark colours are in use now."""
        return self._name() == "dark"

    @property
    def ring_px(self) -> int:
        """Width of the focus ring: thicker where the platform asks for high contrast."""
        return 3 if high_contrast_asked() else 2

    @property
    def text_scale(self) -> float:
        """Factor on all text sizes, 1.0 is 100 %."""
        return self._scale

    @property
    def language(self) -> str:
        """The interface language, which decides the second font family."""
        return self._language

    def color(self, role: str) -> QColor:
        """The colour of a role; KeyError for a role that no theme has."""
        return self._roles[role]

    def roles(self) -> dict[str, QColor]:
        """All roles by name (a copy)."""
        return dict(self._roles)

    def px(self, size: float) -> float:
        """A length in px at 100 % after text scaling: for what must grow with its text."""
        return size * self._scale

    def line_height(self, style: str) -> float:
        """Line height of a text style in px; Korean reading text stands 1 px looser."""
        base = STYLES[style].line_px
        if style == "reading" and self._language == "ko":
            base += 1
        return base * self._scale

    def font(self, style: str, *, tabular: bool = False) -> QFont:
        """A copy of the font of a text style; `tabular` gives figures of equal width."""
        key = (style, tabular)
        if key not in self._fonts:
            self._fonts[key] = self._make_font(STYLES[style], tabular)
        return QFont(self._fonts[key])

    def set_mode(self, mode: Mode) -> None:
        """Use light or dark colours, or follow the platform."""
        if mode != self._mode:
            self._mode = mode
            self._refresh()

    def set_text_scale(self, scale: float) -> None:
        """Scale all text; clamped to 0.8 … 2.0."""
        scale = min(2.0, max(0.8, scale))
        if scale != self._scale:
            self._scale = scale
            self._refresh(fonts=True)

    def set_language(self, language: str) -> None:
        """Put the CJK family of this language second."""
        if language != self._language:
            self._language = language
            self._refresh(fonts=True)

    def apply(self) -> None:
        """Give the application our style, palette, font and style sheet."""
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        if app.style() is None or app.style().objectName() != "fusion":
            app.setStyle("fusion")
        app.setPalette(self._palette())
        app.setFont(self.font("interface"))
        if self._has_sheet:
            app.setStyleSheet(style_sheet(self))

    def put_sheet(self) -> None:
        """Put the style sheet in force, where `install` left it out; once."""
        self._has_sheet = True
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        app.setStyleSheet(style_sheet(self))

    def _refresh(self, *, fonts: bool = False) -> None:
        if fonts:
            self._fonts.clear()
        self._roles = self._pick()
        self.apply()
        self.changed.emit()

    def _scheme_changed(self) -> None:
        if self._pick() != self._roles:
            self._refresh()

    def _name(self) -> str:
        if self._mode != "auto":
            return self._mode
        scheme = QGuiApplication.styleHints().colorScheme()
        return "dark" if scheme == Qt.ColorScheme.Dark else "light"

    def _pick(self) -> dict[str, QColor]:
        roles = dict(_roles(self._name()))
        if high_contrast_asked():
            roles |= {quiet: roles[plain] for quiet, plain in _HIGH_CONTRAST.items()}
        return roles

    def _make_font(self, style: TextStyle, tabular: bool) -> QFont:
        cjk = _CJK_FAMILIES.get(self._language, _CJK_FAMILIES["en"])
        system = QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont).family()
        families = [*(_CODE_FAMILIES if style.code else ("Inter",)), *cjk, system]
        font = QFont(families)
        # Qt takes whole or fractional px only through the point size; px sizes are whole.
        font.setPixelSize(max(1, round(style.size_px * self._scale)))
        font.setWeight(style.weight)
        spacing = style.spacing_px
        if style.code:
            font.setStyleHint(QFont.StyleHint.Monospace)
            font.setFeature(QFont.Tag("calt"), 0)  # no ligatures in code
            font.setFeature(QFont.Tag("liga"), 0)
        elif self._language == "ko" and style.size_px == 15:
            spacing -= 0.1
        if spacing:
            font.setLetterSpacing(
                QFont.SpacingType.AbsoluteSpacing, round(spacing * self._scale * 64) / 64
            )
        if tabular:
            font.setFeature(QFont.Tag("tnum"), 1)
        font.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
        return font

    def _palette(self) -> QPalette:
        role = QPalette.ColorRole
        pairs = {
            role.Window: "window",
            role.WindowText: "text",
            role.Base: "raised",
            role.AlternateBase: "window",
            role.Text: "text",
            role.PlaceholderText: "text3",
            role.Button: "raised",
            role.ButtonText: "text",
            role.BrightText: "onfill",
            role.Light: "raised",
            role.Midlight: "line",
            role.Mid: "line2",
            role.Dark: "ctl",
            role.Shadow: "line2",
            role.Highlight: "fill",
            role.HighlightedText: "onfill",
            role.Accent: "accent",
            role.Link: "accent",
            role.LinkVisited: "accent",
            role.ToolTipBase: "toast",
            role.ToolTipText: "toasttext",
        }
        palette = QPalette()
        for key, name in pairs.items():
            palette.setColor(key, self.color(name))
        for key in (role.WindowText, role.Text, role.ButtonText):
            palette.setColor(QPalette.ColorGroup.Disabled, key, self.color("disabled"))
        palette.setColor(QPalette.ColorGroup.Disabled, role.Highlight, self.color("line2"))
        return palette


_current: Theme | None = None


def current() -> Theme:
    """The application's theme; made with defaults when `install` was not called before."""
    return _current or install()


def install(
    mode: Mode = "auto", text_scale: float = 1.0, language: str = "en", *, sheet: bool = True
) -> Theme:
    """Load the bundled fonts and give the application its theme; call once after QApplication.

    Without `sheet`, `Theme.put_sheet` must follow before anything is shown.  Qt looks through the
    sheet for each widget whenever it gets another parent: a large window is built much faster
    without one.
    """
    global _current  # noqa: PLW0603 - one theme for one QApplication, like Qt's own palette
    _load_fonts(_FONT_FILES)
    theme = Theme(mode, text_scale, language, sheet=sheet)
    _current = theme
    theme.apply()
    return theme


@cache
def _load_fonts(names: tuple[str, ...]) -> None:
    for name in names:
        QFontDatabase.addApplicationFont(str(asset("fonts", f"{name}.ttf")))


def load_late_fonts() -> None:
    """Load italics and bold code, which a start does not need before its first paint."""
    _load_fonts(_LATE_FONT_FILES)
