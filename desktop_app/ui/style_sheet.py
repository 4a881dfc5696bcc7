"""The one style sheet: a template whose ``@role`` tokens are theme colours and ``#n`` sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from PySide6.QtGui import QColor


class Tokens(Protocol):
    """What the template needs of a theme."""

    def color(self, role: str) -> QColor: ...

    def px(self, size: float) -> float: ...


# Dynamic properties choose a look: QPushButton[kind="main|soft|plain|danger|link"],
# QToolButton[kind="icon"], QLabel[kind="small|hint|heading|title|error"], QFrame[kind="card|line"],
# any widget[surface="window|canvas|raised"].  `$n` is a text size in px, scaled.
_TEMPLATE = """
QWidget[surface="window"] { background: @window; }
QWidget[surface="canvas"] { background: @canvas; }
QWidget[surface="raised"] { background: @raised; }
QMainWindow { background: @canvas; }
QDialog { background: @canvas; }
QSplitter::handle { background: @line; }
QFrame[kind="line"] { background: @line; border: 0; max-height: 1px; min-height: 1px; }
QFrame[kind="vline"] { background: @line; border: 0; max-width: 1px; min-width: 1px; }
QFrame[kind="card"] { background: @raised; border: 1px solid @line2; border-radius: 12px; }

QLabel[kind="title"] { font-size: $30; font-weight: 600; color: @text; }
QLabel[kind="heading"] { font-size: $15; font-weight: 600; color: @text; }
QLabel[kind="name"] { font-weight: 600; color: @text; }
QLabel[kind="secondary"] { color: @text2; }
QLabel[kind="small"] { font-size: $12; color: @text3; }
QLabel[kind="section"] { color: @text3; font-weight: 500; }
QLabel[kind="hint"] { font-size: $11; color: @text3; }
QLabel[kind="error"] { color: @clay; }
QLabel[kind="caution"] { color: @ochre; }

QPushButton { background: @raised; color: @text; border: 1px solid @line2; border-radius: 8px;
  padding: 0 12px; min-height: 30px; font-weight: 500; }
QPushButton:hover { background: @hover; }
QPushButton:pressed { background: @press; }
QPushButton:disabled { background: transparent; color: @disabled; border-color: @line; }
QPushButton[kind="main"] { background: @fill; color: @onfill; border-color: @fill; }
QPushButton[kind="main"]:hover { background: @fillhover; border-color: @fillhover; }
QPushButton[kind="main"]:pressed { background: @fillpress; border-color: @fillpress; }
QPushButton[kind="main"]:disabled { background: @hover; color: @disabled; border-color: @hover; }
QPushButton[kind="soft"] { background: @soft; color: @accent; border-color: @soft; }
QPushButton[kind="soft"]:hover { background: @soft2; border-color: @soft2; }
QPushButton[kind="soft"]:pressed { background: @soft2; border-color: @accent; }
QPushButton[kind="soft"]:disabled { background: transparent; color: @disabled;
  border-color: @line; }
QPushButton[kind="plain"] { background: transparent; color: @text2; border-color: transparent; }
QPushButton[kind="plain"]:hover { background: @hover; color: @text; }
QPushButton[kind="plain"]:pressed { background: @press; color: @text; }
QPushButton[kind="plain"]:disabled { color: @disabled; }
QPushButton[kind="danger"] { color: @clay; }
QPushButton[kind="danger"]:hover { background: @claysoft; }
QPushButton[kind="danger"]:disabled { color: @disabled; }
QPushButton[kind="link"] { background: transparent; color: @accent; border: 0; padding: 0;
  min-height: 20px; text-align: left; }
QPushButton[kind="link"]:hover { text-decoration: underline; }
QPushButton[small="true"] { min-height: 26px; }
QPushButton::menu-indicator { width: 0; image: none; }

QToolButton { background: transparent; border: 0; border-radius: 6px; color: @text2; }
QToolButton:hover { background: @hover; color: @text; }
QToolButton:pressed, QToolButton:checked { background: @press; color: @text; }
QToolButton:disabled { color: @disabled; }
QToolButton::menu-indicator { width: 0; image: none; }
QToolButton[kind="icon"] { min-width: 28px; max-width: 28px; min-height: 28px; max-height: 28px;
  padding: 0; }

QLineEdit, QSpinBox, QDoubleSpinBox, QComboBox { background: @raised; color: @text;
  border: 1px solid @ctl; border-radius: 8px; padding: 0 10px; min-height: 30px;
  selection-background-color: @soft2; selection-color: @text; }
QLineEdit:focus, QSpinBox:focus, QDoubleSpinBox:focus, QComboBox:focus {
  border: 1px solid @accent; }
QLineEdit:disabled, QSpinBox:disabled, QDoubleSpinBox:disabled, QComboBox:disabled {
  color: @disabled; border-color: @line; background: transparent; }
QTextEdit, QPlainTextEdit { background: @raised; color: @text; border: 1px solid @line2;
  border-radius: 8px; selection-background-color: @soft2; selection-color: @text; }
QTextEdit:focus, QPlainTextEdit:focus { border: 1px solid @accent; }
QComboBox::drop-down { border: 0; width: 26px; }
QComboBox::down-arrow { image: url("@@chevron-down"); width: 14px; height: 14px; }
QComboBox QAbstractItemView { background: @raised; color: @text; border: 1px solid @line2;
  border-radius: 8px; padding: 4px; selection-background-color: @hover; selection-color: @text;
  outline: 0; }
QSpinBox::up-button, QSpinBox::down-button, QDoubleSpinBox::up-button,
QDoubleSpinBox::down-button { width: 22px; border: 0; background: transparent; }
QSpinBox::up-arrow, QDoubleSpinBox::up-arrow { image: url("@@chevron-up"); width: 12px;
  height: 12px; }
QSpinBox::down-arrow, QDoubleSpinBox::down-arrow { image: url("@@chevron-down"); width: 12px;
  height: 12px; }

QMenu { background: @raised; color: @text; border: 1px solid @line2; border-radius: 8px;
  padding: 4px; }
QMenu::item { padding: 5px 24px 5px 12px; border-radius: 6px; min-height: 20px; }
QMenu::item:selected { background: @hover; }
QMenu::item:disabled { color: @disabled; background: transparent; }
QMenu::separator { height: 1px; background: @line; margin: 4px 0; }
QMenu::icon { padding-left: 10px; }
QMenuBar { background: @window; color: @text2; border-bottom: 1px solid @line; }
QMenuBar::item { padding: 4px 10px; background: transparent; border-radius: 6px; }
QMenuBar::item:selected { background: @hover; color: @text; }

QToolTip { background: @toast; color: @toasttext; border: 1px solid @toast; padding: 3px 6px;
  font-size: $12; }

QAbstractItemView { background: transparent; color: @text; border: 0; outline: 0; }
QAbstractItemView::item { border-radius: 6px; min-height: 30px; }
QAbstractItemView::item:hover { background: @hover; }
QAbstractItemView::item:selected { background: @select; color: @text; }
QHeaderView::section { background: transparent; color: @text3; border: 0;
  border-bottom: 1px solid @line2; padding: 4px 8px; font-weight: 600; }

QScrollBar { background: transparent; border: 0; margin: 0; }
QScrollBar:vertical { width: 12px; }
QScrollBar:horizontal { height: 12px; }
QScrollBar::handle { background: @line2; border-radius: 3px; margin: 3px; }
QScrollBar::handle:vertical { min-height: 32px; }
QScrollBar::handle:horizontal { min-width: 32px; }
QScrollBar::handle:hover, QScrollBar::handle:pressed { background: @ctl; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; border: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QAbstractScrollArea::corner { background: transparent; border: 0; }

QCheckBox, QRadioButton { color: @text; spacing: 8px; }
QCheckBox:disabled, QRadioButton:disabled { color: @disabled; }
QCheckBox::indicator { width: 16px; height: 16px; border: 1px solid @ctl; border-radius: 4px;
  background: @raised; }
QCheckBox::indicator:checked { background: @fill; border-color: @fill;
  image: url("@@check-onfill"); }
QRadioButton::indicator { width: 14px; height: 14px; border: 1px solid @ctl; border-radius: 8px;
  background: @raised; }
QRadioButton::indicator:checked { border: 5px solid @fill; width: 6px; height: 6px;
  background: @onfill; }
QCheckBox::indicator:disabled, QRadioButton::indicator:disabled { border-color: @line;
  background: transparent; }

QSlider::groove:horizontal { height: 4px; border-radius: 2px; background: @line2; }
QSlider::sub-page:horizontal { height: 4px; border-radius: 2px; background: @fill; }
QSlider::handle:horizontal { width: 14px; height: 14px; margin: -5px 0; border-radius: 7px;
  background: @raised; border: 1px solid @ctl; }
QSlider::handle:horizontal:hover { border-color: @accent; }
QProgressBar { background: @line2; border: 0; border-radius: 2px; max-height: 4px;
  min-height: 4px; }
QProgressBar::chunk { background: @accent; border-radius: 2px; }

QTabBar { background: transparent; }
QTabBar::tab { background: transparent; color: @text2; padding: 0 2px; margin: 0 10px 0 0;
  height: 46px; border: 0; border-bottom: 2px solid transparent; }
QTabBar::tab:hover { color: @text; }
QTabBar::tab:selected { color: @text; font-weight: 600; border-bottom-color: @accent; }
QTabWidget::pane { border: 0; border-top: 1px solid @line; }
QGroupBox { border: 0; margin-top: 24px; font-weight: 600; }
QGroupBox::title { subcontrol-origin: margin; left: 0; }
"""


def style_sheet(theme: Tokens, icon_file: Callable[[str], str] | None = None) -> str:
    """The style sheet for a theme; `icon_file` turns a name such as ``chevron-down`` to a path."""
    find = icon_file or _tinted_file(theme)
    text = re.sub(r"@@([a-z-]+)", lambda found: find(found[1]), _TEMPLATE)
    text = re.sub(r"\$(\d+)", lambda found: f"{round(theme.px(float(found[1])))}px", text)
    return re.sub(r"@([a-z0-9]+)", lambda found: theme.color(found[1]).name(), text)


def _tinted_file(theme: Tokens) -> Callable[[str], str]:
    """Style sheets take images only from files: tinted copies lie in a private folder."""
    from desktop_app.ui.icons import tinted_svg_file

    def find(name: str) -> str:
        role = "onfill" if name.endswith("-onfill") else "text2"
        return tinted_svg_file(name.removesuffix("-onfill"), theme.color(role))

    return find
