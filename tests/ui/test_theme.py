"""Colours, fonts and icons: every role, every contrast, every drawing."""

from __future__ import annotations

import tomllib

import pytest
from PySide6.QtGui import QColor, QFontInfo, QPalette
from PySide6.QtWidgets import QApplication

from desktop_app.ui import icons, theme, words
from desktop_app.ui.assets import asset
from desktop_app.ui.style_sheet import style_sheet

TEXT_ON = [  # (text role, surfaces it stands on)
    ("text", ("window", "canvas", "raised", "sunken", "you", "hover", "press", "select")),
    ("text2", ("window", "canvas", "raised", "sunken", "you", "hover", "press", "select")),
    ("text3", ("window", "canvas", "raised", "you", "select")),
    ("accent", ("window", "canvas", "raised", "soft", "you")),
    ("onfill", ("fill", "fillhover", "fillpress")),
    ("ochre", ("canvas", "window", "ochresoft")),
    ("clay", ("canvas", "window", "raised", "claysoft")),
    ("toasttext", ("toast",)),
    ("toastlink", ("toast",)),
    ("codekey", ("sunken", "canvas")),
    ("codestring", ("sunken", "canvas")),
    ("codenumber", ("sunken", "canvas")),
    ("codecomment", ("sunken", "canvas")),
    ("codename", ("sunken", "canvas")),
]
MARKS_ON = [
    ("accent", ("canvas", "window")),
    ("ctl", ("canvas", "raised")),
    ("mapedge", ("canvas",)),
    ("star", ("canvas",)),
    ("claymark", ("canvas", "window")),
    ("dim", ("canvas",)),
]


def luminance(colour: QColor) -> float:
    """Relative luminance as WCAG 2.2 defines it."""

    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(v) for v in (colour.redF(), colour.greenF(), colour.blueF()))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: QColor, other: QColor) -> float:
    """Contrast ratio as WCAG 2.2 defines it."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_contrast(look: theme.Theme, mode: theme.Mode) -> None:
    look.set_mode(mode)
    for pairs, least in ((TEXT_ON, 4.5), (MARKS_ON, 3.0)):
        for role, surfaces in pairs:
            for surface in surfaces:
                found = contrast(look.color(role), look.color(surface))
                assert found >= least, f"{role} on {surface}: {found:.2f}"


def test_both_themes_have_the_same_roles(look: theme.Theme) -> None:
    look.set_mode("light")
    light = set(look.roles())
    look.set_mode("dark")
    assert set(look.roles()) == light


def test_palette_and_style_sheet_follow_the_theme(look: theme.Theme, qapp: QApplication) -> None:
    changes = []
    look.changed.connect(lambda: changes.append(look.is_dark))
    look.set_mode("dark")
    assert qapp.palette().color(QPalette.ColorRole.WindowText) == look.color("text")
    assert look.color("fill").name() in qapp.styleSheet()
    assert changes == [True]


def test_every_token_of_the_style_sheet_is_filled(look: theme.Theme) -> None:
    made = style_sheet(look)
    assert "@" not in made
    assert "$" not in made


def test_text_scale_scales_fonts_and_lines(look: theme.Theme) -> None:
    size, line = look.font("reading").pixelSize(), look.line_height("reading")
    look.set_text_scale(1.4)
    assert look.font("reading").pixelSize() == round(size * 1.4)
    assert look.line_height("reading") == pytest.approx(line * 1.4)
    look.set_text_scale(9)
    assert look.text_scale == 2.0
    look.set_text_scale(1.0)


def test_bundled_fonts_are_used(look: theme.Theme) -> None:
    assert QFontInfo(look.font("reading")).family().startswith("Inter")
    assert QFontInfo(look.font("code")).family() == "JetBrains Mono"
    assert QFontInfo(look.font("code")).fixedPitch()


def test_korean_face_stands_second_and_lines_are_looser(look: theme.Theme) -> None:
    look.set_language("ko")
    assert look.font("interface").families()[1] == "Noto Sans CJK KR"
    assert look.line_height("reading") == 25
    look.set_language("en")


@pytest.mark.parametrize("name", icons.available())
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_icons_are_drawn_sharp_and_tinted(look: theme.Theme, name: str, ratio: float) -> None:
    made = icons.pixmap(name, "clay", 16, ratio)
    assert made.width() == round(16 * ratio)
    image = made.toImage()
    inked = [
        image.pixelColor(x, y)
        for x in range(image.width())
        for y in range(image.height())
        if image.pixelColor(x, y).alpha() > 200
    ]
    if name != "app":
        clay = look.color("clay")
        assert all(abs(c.red() - clay.red()) + abs(c.blue() - clay.blue()) < 24 for c in inked)
    assert inked or name in {"loader-circle"} or ratio == 1.0


def test_unknown_icon_and_role_are_errors(look: theme.Theme) -> None:
    with pytest.raises(FileNotFoundError):
        icons.pixmap("no-such-icon")
    with pytest.raises(KeyError):
        look.color("no-such-role")


def test_languages_have_the_same_rooms_and_no_strange_keys() -> None:
    tables = {}
    for language in words.LANGUAGES:
        with asset("i18n", f"{language}.toml").open("rb") as file:
            tables[language] = tomllib.load(file)
    for room, entries in tables["ko"].items():
        assert set(entries) <= set(tables["en"][room]), room
    missing = {
        f"{room}.{key}"
        for room, entries in tables["en"].items()
        for key in entries
        if key not in tables["ko"].get(room, {})
    }
    assert not missing


def test_words_choose_the_number_and_group_digits() -> None:
    assert words.tr("row.delete_below", count=1) == "Delete this message and 1 below"
    assert words.tr("row.delete_below", count=1234) == "Delete this message and 1,234 below"
    words.set_language("ko")
    assert words.tr("row.ask_again") == "다시 묻기"
    words.set_language("en")
    with pytest.raises(KeyError):
        words.tr("row.no_such_key")


def test_high_contrast_asked_for_by_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = theme.Theme("light").roles()
    monkeypatch.setattr(theme, "high_contrast_asked", lambda: True)
    for mode in ("light", "dark"):
        strong = theme.Theme(mode)
        assert strong.ring_px == 3
        assert strong.color("text3") == strong.color("text2")
        assert strong.color("line2") == strong.color("ctl")
    assert theme.Theme("light").color("text3") != plain["text3"]
    assert theme.Theme("light").color("accent") == plain["accent"]
