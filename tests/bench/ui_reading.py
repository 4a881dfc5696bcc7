"""How fast the transcript is: opening, scrolling, streaming.  CPU times of this thread, in ms.

python -m tests.bench.ui_reading
"""

from __future__ import annotations

import argparse
import os
import sys
from time import thread_time

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication

from desktop_app.ui import maths, theme
from desktop_app.ui.transcript import Transcript
from tests.bench.pairs import Figure
from tests.ui.sample_rows import mixed_rows, picture_rows

PARAGRAPH = (
    "Over 25 years you pay **€188 less each month**, but `€30,061` more in *interest*. "
    * 3
    + "\n\n- item one with `code`\n- item two\n\n```python\ndef f(x):\n    return x * 2  # c\n"
    "```\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n"
)
STEP = 12


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def opened(app: QApplication, view: Transcript) -> float:
    """Opening 2,000 mixed messages at their end, painted."""
    rows = mixed_rows(2000)
    view.set_rows([])
    app.processEvents()
    start = thread_time()
    view.set_rows(rows)
    view.scroll_to_end()
    app.processEvents()
    return (thread_time() - start) * 1000


def scrolled(app: QApplication, view: Transcript, step: int, frames: int) -> list[float]:
    """Frames of scrolling up through rows never seen before."""
    bar = view.verticalScrollBar()
    times = []
    for _frame in range(frames):
        start = thread_time()
        bar.setValue(bar.value() - step)
        app.processEvents()
        times.append((thread_time() - start) * 1000)
    return times


def streamed(app: QApplication, view: Transcript) -> list[float]:
    """Updates of a 20,000-character reply at the end, each painted."""
    text = PARAGRAPH * (20_000 // len(PARAGRAPH) + 1)
    view.set_rows(picture_rows())
    view.scroll_to_end()
    app.processEvents()
    times = []
    for end in range(STEP, 20_000, STEP):
        start = thread_time()
        view.stream(4, text[:end])
        app.processEvents()
        times.append((thread_time() - start) * 1000)
    return times


def measured(runs: int = 3) -> list[Figure]:
    """All measures, each the median of some runs."""
    app = QApplication.instance() or QApplication([])
    assert isinstance(app, QApplication)
    theme.install("light")
    theme.load_late_fonts()
    view = Transcript()
    view.resize(728, 690)
    view.show()
    view.set_rows(picture_rows())  # the first paint loads fonts, for any window
    for _round in range(3):
        app.processEvents()
        maths.maths().wait()
    opening = Figure("transcript: open 2,000 mixed messages", "ms CPU", "<= 120")
    notch = Figure("transcript: scroll by a notch, 95th percentile", "ms CPU", "<= 16")
    page = Figure("transcript: scroll by a page, 95th percentile", "ms CPU", "<= 16")
    first = Figure("transcript: stream, mean update at 0-4,000", "ms CPU", "<= 5")
    last = Figure("transcript: stream, mean update at 16,000-20,000", "ms CPU", "<= 5")
    flat = Figure("transcript: stream, end / begin", "ratio", "<= 1.5")
    for _run in range(runs):
        opening.values += [opened(app, view) for _again in range(3)]
        notch.values.append(percentile(scrolled(app, view, 60, 300), 0.95))
        page.values.append(percentile(scrolled(app, view, 600, 100), 0.95))
        updates = streamed(app, view)
        fifth = len(updates) // 5
        begin, end = sum(updates[:fifth]) / fifth, sum(updates[-fifth:]) / fifth
        first.values.append(begin)
        last.values.append(end)
        flat.pairs.append((end, begin))
    view.deleteLater()
    maths.close()
    return [opening, notch, page, first, last, flat]


def figures(_options: argparse.Namespace) -> list[Figure]:
    """For `make bench`."""
    return measured()


def main() -> int:
    """Print each measure and its aim; 1 when one is missed."""
    found = measured(1)
    for figure in found:
        verdict = "ok" if figure.reached else "MISSED"
        sys.stdout.write(f"{figure.name:52} {figure.measured:7.2f} {figure.aim:8} {verdict}\n")
    return 0 if all(figure.reached for figure in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
