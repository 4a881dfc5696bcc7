"""The window looks as it looked: pictures beside the ones that people looked at and kept.

Kept pictures are a quarter of the size: fonts, hinting and the hour differ between machines, while
a missing area, a wrong colour or a moved column shows.  `GROVE_KEEP_PICTURES=1` keeps new ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QImage

from tests.ui.screenshots import LOOKS, SCENES

KEPT = Path(__file__).parents[1] / "golden" / "window"
# Mean difference of a channel over the picture, and of the worst of 16 × 16 blocks, of 255.
MEAN, BLOCK = 4.0, 60.0


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scenes, taken by the script itself."""
    folder = tmp_path_factory.mktemp("pictures")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.ui.screenshots", "--out", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=240)
    return folder


def small(file: Path) -> QImage:
    """A picture at a quarter of its size in points, whatever its ratio."""
    image = QImage(str(file))
    assert not image.isNull(), file
    ratio = 2 if file.stem.endswith("2x") else 1
    size = QSize(image.width() // (4 * ratio), image.height() // (4 * ratio))
    smooth = Qt.TransformationMode.SmoothTransformation
    return image.scaled(size, Qt.AspectRatioMode.IgnoreAspectRatio, smooth).convertToFormat(
        QImage.Format.Format_RGB32
    )


def differences(one: QImage, other: QImage) -> tuple[float, float]:
    """The mean difference of a channel, and that of the worst block of 16 × 16 px."""
    width, height = one.width(), one.height()
    a, b = bytes(one.constBits()), bytes(other.constBits())
    blocks: dict[tuple[int, int], list[int]] = {}
    for y in range(height):
        for x in range(width):
            at = (y * width + x) * 4
            gap = sum(abs(a[at + i] - b[at + i]) for i in range(3))
            blocks.setdefault((x // 16, y // 16), []).append(gap)
    means = [sum(gaps) / len(gaps) / 3 for gaps in blocks.values()]
    return sum(means) / len(means), max(means)


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("scene", SCENES)
def test_the_window_looks_as_it_was_kept(taken: Path, scene: str, look: str, ratio: int) -> None:
    name = f"{scene}-{look}-{ratio}x.png"
    now = small(taken / name)
    kept = KEPT / name
    if os.environ.get("GROVE_KEEP_PICTURES"):
        KEPT.mkdir(parents=True, exist_ok=True)
        now.save(str(kept))
    then = QImage(str(kept)).convertToFormat(QImage.Format.Format_RGB32)
    assert (now.width(), now.height()) == (then.width(), then.height())
    mean, worst = differences(now, then)
    assert mean <= MEAN, f"{name}: differs by {mean:.1f} of 255"
    assert worst <= BLOCK, f"{name}: one place differs by {worst:.1f} of 255"
