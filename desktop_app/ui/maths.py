"""TeX formulas as images: typeset by ziamath in a worker thread, cached, tinted when drawn.

Until a formula is ready, and when it cannot be typeset, its TeX source stands in its place.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from PySide6.QtCore import QByteArray, QCoreApplication, QObject, QRectF, Qt, QThreadPool, Signal
from PySide6.QtGui import QColor, QImage, QPainter
from PySide6.QtSvg import QSvgRenderer

_LONGEST = 1500
_DEEPEST = 30
_KEPT = 600
_INK = "#010203"  # the colour ziamath is asked for; replaced when drawn
_VIEW_BOX = re.compile(r'viewBox="([-\d.]+) ([-\d.]+) ([-\d.]+) ([-\d.]+)"')

Key = tuple[str, bool, int]


@dataclass(frozen=True, slots=True)
class Formula:
    """A typeset formula: SVG and its size in px above and below the base line."""

    svg: str
    width: float
    ascent: float
    descent: float

    def image(self, colour: QColor, ratio: float) -> QImage:
        """The formula in a colour, for a device pixel ratio."""
        height = self.ascent + self.descent
        size = (max(1, round(self.width * ratio)), max(1, round(height * ratio)))
        image = QImage(*size, QImage.Format.Format_ARGB32_Premultiplied)
        image.fill(Qt.GlobalColor.transparent)
        renderer = QSvgRenderer(QByteArray(self.svg.replace(_INK, colour.name()).encode()))
        painter = QPainter(image)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        renderer.render(painter, QRectF(0, 0, self.width * ratio, height * ratio))
        painter.end()
        image.setDevicePixelRatio(ratio)
        return image


def typeset(tex: str, display: bool, size_px: int) -> Formula | None:
    """Typeset one formula (10 to 30 ms; the first also loads the fonts); None where it fails.

    Worker threads only.
    """
    if not _is_reasonable(tex):
        return None
    try:
        svg = str(_latex()(tex, size=size_px, color=_INK, inline=not display).svg())
    except Exception:  # noqa: BLE001 - whatever a model wrote: the source is shown then
        return None
    found = _VIEW_BOX.search(svg)
    if found is None:
        return None
    _x, top, width, height = (float(part) for part in found.groups())
    if not (0 < width < 5000 and 0 < height < 3000):
        return None
    return Formula(svg, width, -top, height + top)


@cache
def _latex() -> Callable[..., Any]:
    """ziamath's class, imported late: it takes 0.3 s and loads a font."""
    with warnings.catch_warnings():
        # It reads its font through an interface of importlib that Python is about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        from ziamath.config import config
        from ziamath.zmath import Latex

    config.svg2 = False  # plain paths: QtSvg knows no <symbol> of SVG 2
    return cast("Callable[..., Any]", Latex)


def _is_reasonable(tex: str) -> bool:
    """Short, flat and in scripts that the formula font has."""
    if len(tex) > _LONGEST or any(ord(char) > 0x2FFF and ord(char) < 0x1D000 for char in tex):
        return False
    depth = deepest = 0
    for char in tex:
        depth += (char == "{") - (char == "}")
        deepest = max(deepest, depth)
    return deepest <= _DEEPEST and tex.count("\\") < 400


class Maths(QObject):
    """The cache of formulas and its worker; one for the window, main thread only."""

    ready = Signal(str)  # TeX that was waited for

    _done = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self._found: OrderedDict[Key, Formula | None] = OrderedDict()
        self._waiting: set[Key] = set()
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._pool.setExpiryTimeout(3000)
        self._closed = threading.Event()
        self._done.connect(self._take, Qt.ConnectionType.QueuedConnection)

    def formula(self, tex: str, *, display: bool, size_px: int) -> Formula | None:
        """The formula when it is ready; else None, and `ready` tells when to ask again."""
        key = (tex, display, size_px)
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        if key not in self._waiting and not self._closed.is_set():
            self._waiting.add(key)
            self._pool.start(lambda: self._work(key))
        return None

    def is_waiting(self, tex: str, *, display: bool, size_px: int) -> bool:
        """Whether the worker still has this formula to do."""
        return (tex, display, size_px) in self._waiting

    def wait(self) -> None:
        """Wait until the worker has nothing to do; for tests and pictures."""
        self._pool.waitForDone(20_000)

    def close(self) -> None:
        """Drop what waits and let the worker end."""
        self._closed.set()
        self._pool.clear()
        self._pool.waitForDone(5000)

    def _work(self, key: Key) -> None:
        if self._closed.is_set():
            return
        formula = typeset(*key)
        try:
            self._done.emit(key, formula)
        except RuntimeError:
            pass  # the application ended meanwhile, and took this object with it

    def _take(self, key: Key, formula: Formula | None) -> None:
        self._waiting.discard(key)
        self._found[key] = formula
        while len(self._found) > _KEPT:
            self._found.popitem(last=False)
        self.ready.emit(key[0])


_maths: Maths | None = None


def maths() -> Maths:
    """The window's formulas."""
    global _maths  # noqa: PLW0603 - one cache and one worker for all views
    if _maths is None:
        _maths = Maths()
        app = QCoreApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(close)
    return _maths


def close() -> None:
    """End the worker; for the end of the program and of tests."""
    global _maths  # noqa: PLW0603 - see maths()
    if _maths is not None:
        _maths.close()
        _maths = None
