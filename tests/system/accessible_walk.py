"""Walks the windows as a screen reader does: what takes the focus has a name, and Tab comes to it.

    python -m tests.system.accessible_walk [--json]

Needs Xvfb, xdotool, dbus-run-session, at-spi2-core and the system's Python with
gir1.2-atspi-2.0.  Starts Grove on a display, a session bus and a profile of its own and opens by
keys: the first start, a chat, the find bar, the chat's settings, the editor of a message, drafts
side by side, the shortcuts, the prompt, every page of the settings and the trash.  In each it asks
AT-SPI for what takes the focus: it has a name and an identifier of its own, and the Tab key comes
to it (arrows go through what stands in lists and bars).  What was there in the chat already is not
counted again.  Qt leaves open menus out of AT-SPI's tree, so no walk sees them; the weights page
has a walk of its own.  Prints how many controls there were and those that fail; exit status 1 when
there are any, 2 where a program is missing.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.fakes import tiny_gguf
from tests.system.grove import Grove
from tests.system.reader import Control, Reader, screen, walk_main

MOST_TABS: Final = 60
QUIET_S: Final = 0.3
PAGES: Final = ("weights", "replies", "appearance", "privacy")
# What stands in lists and bars: the arrow keys go through it, and its identifier is theirs.
BY_ARROWS: Final = ("list item", "page tab", "tree item", "table cell", "scroll bar", "scroll pane")


def with_chat(folder: Path) -> Path:
    """A profile with weights and a chat, which its window opens."""
    profile = folder / "profile"
    profile.mkdir(parents=True)
    settings = {
        "weights_path": str(tiny_gguf.write(folder / "Tiny.gguf")),
        "language": "en",
        "presets": {"Short": {"temperature": 1.0, "max_tokens": 8}},
        "preset": "Short",
        "drafts": 2,
    }
    file = profile / "settings.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    grove = Grove(profile)
    grove("ask", "--json", "Hello there").ok()
    settings["window"] = {"chat": grove("chats", "--json").ok().json[0]["id"]}
    file.write_text(json.dumps(settings), encoding="utf-8")
    return profile


class Walk:
    """One running Grove, and what was found in its windows."""

    def __init__(self, profile: Path, env: dict[str, str]) -> None:
        self.found: dict[str, int] = {}
        self.bad: list[tuple[str, str, str, str]] = []
        self.reader = Reader(env, Grove(profile).command())
        self._before: Counter[str] = Counter()

    def mark(self) -> None:
        """What is there now is no part of the states to come."""
        self._before = Counter(c.id for c in self.reader.controls())

    def controls(self) -> list[Control]:
        """What takes the focus and is new since the mark, once it has come to rest."""
        last: list[str] = []
        since = time.monotonic()
        while True:
            now = [c for c in self.reader.controls() if c.id not in self._before]
            ids = [c.id for c in now]
            if ids != last:
                last, since = ids, time.monotonic()
            elif now and time.monotonic() - since > QUIET_S:
                return now
            assert time.monotonic() - since < 20, "nothing came that takes the focus"

    def check(self, state: str) -> None:
        """Names and identifiers of what is new, and whether Tab comes to it."""
        began = time.monotonic()
        told = self.controls()
        self.found[state] = len(told)
        stops = [c for c in told if c.role not in BY_ARROWS]
        for control in told:
            if not control.name.strip():
                self.bad.append((state, "no name", control.role, control.id))
        for control in stops:
            # Qt gives what has no identifier the path of its parents' names, in which nameless
            # widgets stand with their class.
            if not control.id or control.id.rsplit(".", 1)[-1][:1].isupper():
                self.bad.append((state, "no identifier", control.role, control.id))
        for identifier, count in Counter(c.id for c in stops).items():
            if count > 1:
                self.bad.append((state, "not its own", str(count), identifier))
        missed = self.missed({stop_of(c.id) for c in stops if c.enabled})
        self.bad += [(state, "Tab never comes", "", one) for one in sorted(missed)]
        print(f"{state}: {len(told)}, {time.monotonic() - began:.1f} s", file=sys.stderr)

    def missed(self, wanted: set[str]) -> set[str]:
        """Those of `wanted` that Tab does not come to."""
        for _ in range(MOST_TABS):
            here = self.focus()
            wanted = wanted - {here}
            if not wanted:
                break
            self.reader.press("Tab")
            end = time.monotonic() + 1.0
            while self.focus() == here and time.monotonic() < end:
                pass
        return wanted

    def focus(self) -> str:
        """The identifier of what has the keyboard."""
        control = self.reader.focus(BY_ARROWS)
        return stop_of(control.id) if control is not None else ""

    def go(self, identifier: str) -> None:
        """Tab until the focus is there."""
        self.reader.see(identifier)
        assert not self.missed({identifier}), f"Tab does not come to {identifier}"

    def window(self, title: str) -> None:
        """Give a window the keyboard: without a window manager nobody else does."""
        self.reader.do("search", "--sync", "--onlyvisible", "--name", f"^{title}$", "windowfocus")

    def leave(self, identifier: str) -> None:
        """Escape, until the control is gone; the main window has the keyboard again."""
        self.reader.press("Escape")
        self.reader.wait(f"the end of {identifier}", lambda: self.reader.look(identifier) is None)

    def back(self) -> None:
        """Into the composer of the main window."""
        self.reader.click("composer.text")
        self.reader.wait("the composer", lambda: self.focus() == "composer.text")


def walk_chat(one: Walk) -> None:
    """A chat and what opens in it."""
    reader = one.reader
    reader.see("composer.text")
    reader.see("weights.card", "ready")
    one.back()
    one.check("a chat")
    one.back()
    one.mark()
    reader.press("ctrl+f")
    reader.see("find.text")
    one.check("the find bar")
    one.go("find.text")
    one.leave("find.text")
    one.back()
    reader.press("ctrl+e")
    reader.see("message.editor")
    one.check("an editor")
    one.go("message.editor")
    one.leave("message.editor")
    one.back()
    reader.press("ctrl+shift+comma")
    reader.see("chat_settings.system")
    one.check("the chat's settings")
    one.back()
    one.mark()
    reader.press("ctrl+shift+r")
    reader.see("draft.1.keep")
    reader.see("draft.2.keep")
    one.check("drafts")


def walk_windows(one: Walk) -> None:
    """The windows beside the main one."""
    reader = one.reader
    one.back()
    one.mark()
    reader.press("F1")
    reader.see("shortcuts.close")
    one.window("Keyboard shortcuts")
    one.check("the shortcuts")
    one.leave("shortcuts.close")
    one.back()
    reader.press("ctrl+shift+p")
    reader.see("prompt.facts", "tokens")
    one.window("What the weights read")
    one.check("the prompt")
    one.leave("prompt.close")
    one.back()
    reader.press("ctrl+comma")
    reader.see("settings.pages")
    one.window("Settings")
    one.check(f"settings, {PAGES[0]}")
    for page in PAGES[1:]:
        one.go("settings.pages")
        reader.press("Down")
        one.check(f"settings, {page}")
    one.go("settings.trash")
    one.mark()
    reader.press("space")
    reader.see("trash.close")
    one.window("Trash")
    one.check("the trash")


def stop_of(identifier: str) -> str:
    """What Tab stops at; the messages are one stop, and arrows go through them."""
    return "message.N" if identifier.removeprefix("message.").isdigit() else identifier


def run() -> dict[str, Any]:
    """Both profiles on one display: controls in each state, and those that fail."""
    with (
        tempfile.TemporaryDirectory() as name,
        screen(Path(name)) as env,
    ):
        folder = Path(name)
        (folder / "first").mkdir()
        (folder / "first" / "settings.json").write_text('{"language": "en"}', encoding="utf-8")
        first = Walk(folder / "first", env)
        try:
            first.reader.see("first.file")
            first.reader.activate("first")
            first.check("the first start")
        finally:
            first.reader.close()
        one = Walk(with_chat(folder), env)
        try:
            walk_chat(one)
            walk_windows(one)
        except BaseException:
            there = [(c.id, c.name[:30], c.focused) for c in one.reader.controls()]
            print(f"Found: {one.found}, {one.bad}\nControls: {there}", file=sys.stderr)
            raise
        finally:
            one.reader.close()
        return {"controls": first.found | one.found, "failing": first.bad + one.bad}


if __name__ == "__main__":
    sys.exit(walk_main("tests.system.accessible_walk", __doc__, run))
