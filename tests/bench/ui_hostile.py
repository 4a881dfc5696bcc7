"""300 hostile replies: the longest freeze, what is lost, and (under strace) what is opened.

python -m tests.bench.ui_hostile
strace -f -e trace=openat,connect -o TRACE python -m tests.bench.ui_hostile
python -m tests.bench.ui_hostile --read TRACE
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from time import perf_counter, thread_time

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication

from desktop_app.ui import maths, theme
from desktop_app.ui.row_view import RowView
from desktop_app.ui.transcript import Transcript
from tests.ui.hostile import replies

MARK_BEGIN, MARK_END = "grove-hostile-begin", "grove-hostile-end"


def mark(name: str) -> None:
    """A file name that cannot exist, to be found in the trace."""
    Path(f"/nonexistent/{name}").exists()
    try:
        Path(f"/nonexistent/{name}").read_bytes()
    except OSError:
        pass


def shown_letters(view: Transcript, message_id: int) -> int:
    """Letters and digits that a message shows, with addresses, once all of it is parsed."""
    content = view.content_of(message_id)
    assert content is not None
    while content.body.parse_more():
        pass
    total = 0
    for piece in content.body.pieces:
        block = piece.block
        total += sum(map(str.isalnum, block.plain() + block.language + block.marker))
        links = {run.link for run in block.runs if run.link}
        total += sum(map(str.isalnum, "".join(links)))
    return total


def run() -> int:
    """Show, scroll and stream every reply; 1 when one freezes the window or loses text."""
    app = QApplication.instance() or QApplication([])
    assert isinstance(app, QApplication)
    theme.install("light")
    theme.load_late_fonts()
    view = Transcript()
    view.resize(728, 690)
    view.show()
    warm = "```python\nx = 1\n```\n\n$x$ 한국어 العربية עברית ไทย नमस्ते 👨‍👩‍👧 ☐ Z͑ͫ̓ \u0b95 \ufffd ␛"
    view.set_rows([RowView(1, "assistant", text=warm)])
    for _round in range(3):
        app.processEvents()
        maths.maths().wait()
    texts = list(replies())
    mark(MARK_BEGIN)
    worst: list[tuple[float, float, int, str]] = []
    lost = []
    for number, text in enumerate(texts, 1):
        slow = show(app, view, number, text)
        worst.append((*slow, number, text[:40]))
        written = sum(map(str.isalnum, re.sub(r"&#?\w{1,32};", "", text)))
        if shown_letters(view, number) < written - text.count("."):
            lost.append(number)
    maths.maths().wait()
    app.processEvents()
    mark(MARK_END)
    worst.sort(reverse=True)
    for cpu, wall, number, text in worst[:8]:
        sys.stdout.write(f"reply {number:3}: {cpu:6.1f} ms CPU, {wall:6.1f} ms  {text!r}\n")
    sys.stdout.write(f"longest step {worst[0][0]:.1f} ms CPU, limit 100; text lost in {lost}\n")
    maths.close()
    return 1 if worst[0][0] > 100 or lost else 0


def show(app: QApplication, view: Transcript, number: int, text: str) -> tuple[float, float]:
    """Show, scroll through and stream a reply; the longest step in ms of CPU and of the clock."""
    longest = (0.0, 0.0)

    def step(action: object) -> None:
        nonlocal longest
        assert callable(action)
        cpu, wall = thread_time(), perf_counter()
        action()
        app.processEvents()
        taken = ((thread_time() - cpu) * 1000, (perf_counter() - wall) * 1000)
        longest = max(longest, taken)

    row = RowView(number, "assistant", "Llama", text=text)
    step(lambda: view.set_rows([row]))
    bar = view.verticalScrollBar()
    for share in (0.0, 0.001, 0.3, 0.7, 1.0):
        step(lambda share=share: bar.setValue(round(bar.maximum() * share)))
    for size in (100, 900, 5000, 20_000, len(text)):
        step(lambda size=size: view.stream(number, text[:size]))
    step(lambda: view.resize(700 + number % 60, 690))
    return longest


def read(trace: Path) -> int:
    """What was opened or connected to between the marks; 1 for anything not of the program."""
    own: tuple[str, ...] = (
        "/usr/",
        "/lib",
        "/proc/",
        "/sys/",
        "/etc/ld.so",
        "/etc/localtime",
        "/dev/",
        "/tmp/grove",
    )
    own += (str(Path(sys.prefix).parent), str(Path(sys.base_prefix)), "/var/cache/fontconfig")
    inside, bad, seen = False, [], 0
    for line in trace.read_text(errors="replace").splitlines():
        if MARK_BEGIN in line:
            inside = True
        elif MARK_END in line:
            inside = False
        elif inside:
            seen += 1
            found = re.search(r'openat\([^"]*"([^"]*)"', line)
            if "connect(" in line or (found and not found[1].startswith(own)):
                bad.append(line)
    sys.stdout.write(f"{seen} calls between the marks, {len(bad)} strange\n")
    sys.stdout.writelines(f"{line}\n" for line in bad[:20])
    return 1 if bad or not seen else 0


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--read":
        raise SystemExit(read(Path(sys.argv[2])))
    raise SystemExit(run())
