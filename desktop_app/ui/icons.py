"""Line icons, tinted with theme roles and drawn at the screen's pixel ratio.

The drawings are Lucide's (ISC, see ``resources/icons/LICENSE-Lucide.txt``) and Grove's own tree.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PySide6.QtCore import QBuffer, QDir, QSize, QTemporaryDir
from PySide6.QtGui import (
    QColor,
    QGuiApplication,
    QIcon,
    QImageReader,
    QPainter,
    QPixmap,
    QPixmapCache,
)

from desktop_app.ui import theme
from desktop_app.ui.assets import asset


@cache
def _source(name: str) -> str:
    return asset("icons", f"{name}.svg").read_text(encoding="utf-8")


def _tinted_svg(name: str, colour: QColor, stroke: float) -> bytes:
    text = _source(name).replace("currentColor", colour.name())
    return text.replace('stroke-width="2"', f'stroke-width="{stroke}"').encode()


def pixmap(name: str, role: str = "text2", size: int = 16, ratio: float = 0.0) -> QPixmap:
    """An icon in the colour of a theme role, `size` logical px square, for a device pixel ratio.

    `ratio` 0 means that of the primary screen.  KeyError for an unknown role, FileNotFoundError
    for an unknown icon.
    """
    return colour_pixmap(name, theme.current().color(role), size, ratio)


def colour_pixmap(name: str, colour: QColor, size: int = 16, ratio: float = 0.0) -> QPixmap:
    """As `pixmap`, in any colour."""
    ratio = ratio or _screen_ratio()
    key = f"grove-icon/{name}/{colour.rgba()}/{size}/{ratio}"
    found = QPixmap()
    if QPixmapCache.find(key, found):
        return found
    side = max(1, round(size * ratio))
    stroke = 1.6 if size >= 18 else 1.75  # in Lucide's own 24 units
    # By Qt's plugin, which style sheets need anyway: importing PySide6.QtSvg costs every start.
    source = QBuffer()
    source.setData(_tinted_svg(name, colour, stroke))
    reader = QImageReader(source, b"svg")
    reader.setScaledSize(QSize(side, side))
    image = QPixmap.fromImage(reader.read())
    image.setDevicePixelRatio(ratio)
    QPixmapCache.insert(key, image)
    return image


def icon(
    name: str,
    role: str = "text2",
    size: int = 16,
    *,
    on_role: str = "",
    disabled_role: str = "disabled",
) -> QIcon:
    """A QIcon with a normal, a disabled and (with `on_role`) an active and checked look."""
    made = QIcon()
    ratios = sorted({_screen_ratio(), 1.0, 2.0})
    for ratio in ratios:
        made.addPixmap(pixmap(name, role, size, ratio), QIcon.Mode.Normal, QIcon.State.Off)
        made.addPixmap(pixmap(name, disabled_role, size, ratio), QIcon.Mode.Disabled)
        if on_role:
            lit = pixmap(name, on_role, size, ratio)
            made.addPixmap(lit, QIcon.Mode.Active)
            made.addPixmap(lit, QIcon.Mode.Selected)
            made.addPixmap(lit, QIcon.Mode.Normal, QIcon.State.On)
    return made


def app_icon() -> QIcon:
    """Grove's icon for windows and task bars."""
    made = QIcon()
    for side in (16, 24, 32, 48, 64, 128, 256):
        made.addPixmap(colour_pixmap("app", QColor(0, 0, 0), side, 1.0))
    return made


def draw(painter: QPainter, name: str, role: str, x: float, y: float, size: int = 16) -> None:
    """Paint an icon with its top left corner at (x, y), sharp on the painter's device."""
    ratio = painter.device().devicePixelRatio()
    painter.drawPixmap(round(x), round(y), pixmap(name, role, size, ratio))


def available() -> list[str]:
    """Names of all bundled icons."""
    return sorted(path.stem for path in asset("icons").glob("*.svg"))


@cache
def _folder() -> QTemporaryDir:
    # Not tempfile: that would bring random, shutil and the compressors into every start.
    return QTemporaryDir(f"{QDir.tempPath()}/grove-icons-XXXXXX")


@cache
def _tinted_file(name: str, colour: str) -> str:
    path = Path(_folder().path()) / f"{name}-{colour.lstrip('#')}.svg"
    path.write_bytes(_tinted_svg(name, QColor(colour), 2.0))
    return path.as_posix()


def tinted_svg_file(name: str, colour: QColor) -> str:
    """The path of a tinted copy of an icon, for style sheets, which read images from files."""
    return _tinted_file(name, colour.name())


def _screen_ratio() -> float:
    screens = QGuiApplication.screens()
    return screens[0].devicePixelRatio() if screens else 1.0
