"""A day in the window, from outside: identifiers and keys, the real engine, then a restart.

    python -m tests.system.window_day [--json]

Grove runs as its users start it, on a display and a bus of its own.  The weights are real for
llama.cpp but tiny and random, and never end a turn: every reply is caught in the middle.  Ask,
stop, continue, ask again twice, go between versions, edit an earlier prompt and ask again, edit a
reply, delete a version, change chats and delete messages while replies are written, undo all, redo
all, quit while writing, start again.  What Grove holds is read beside it (``grove export --all
--json``); what it shows is what a screen reader is told.  Prints what was found; exit status 1 when
the day did not end as it should, 2 where a program is missing.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from desktop_app.exchange.export import write
from desktop_app.paths import Profile
from desktop_app.storage import Library
from tests.fakes import tiny_gguf
from tests.system.grove import Grove
from tests.system.reader import Reader, run_inside, screen

ENOUGH: Final = 12  # characters of a reply that is surely being written
PATIENCE_S: Final = 60.0
QUIET_S: Final = 0.6

Dump = dict[str, Any]


class Day:
    """One profile, one window at a time."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.grove = Grove(folder / "profile")
        self.env = env
        self.seen: dict[str, Any] = {}
        self.reader: Reader
        self.grove.profile.mkdir()
        weights = tiny_gguf.write(folder / "Tiny.gguf", "slow")
        settings = {
            "weights_path": str(weights),
            "language": "en",
            "threads": 1,
            "context_length": 4096,
            "presets": {"Long": {"temperature": 1.0, "max_tokens": 0}},
            "preset": "Long",
            "window": {"sides": {"sidebar": True, "dock": True}},
        }
        (self.grove.profile / "settings.json").write_text(json.dumps(settings), encoding="utf-8")

    # ---- what it holds -----------------------------------------------------------------------

    def export(self) -> list[Dump]:
        """Every chat as ``grove export --all --json`` writes it, oldest first."""
        file = self.folder / "all.json"
        self.grove("export", "--all", "--json", "-o", file).ok()
        return chats_in(file)

    def held(self) -> list[Dump]:
        """The same without a process of its own, for looking often."""
        file = self.folder / "held.json"
        library = Library.open(Profile(self.grove.profile), read_only=True)
        try:
            write(library, file)
        finally:
            library.close()
        return chats_in(file)

    def path(self, chat: int = 0) -> list[Dump]:
        """The messages of a chat's open path, from the top."""
        chats = self.held()
        if chat >= len(chats):
            return []
        by_uid = {message["uid"]: message for message in chats[chat]["messages"]}
        at, found = chats[chat]["chat"]["head"], []
        while at is not None:
            found.append(by_uid[at])
            at = by_uid[at]["parent"]
        return found[::-1]

    def wait(self, what: str, find: Callable[[], Any]) -> Any:
        """Ask what Grove holds until `find` gives something."""
        end = time.monotonic() + PATIENCE_S
        while True:
            found = find()
            if found:
                return found
            assert time.monotonic() < end, f"waited for {what} in vain"
            time.sleep(0.1)

    def last(self, chat: int = 0) -> Dump:
        """The last message of a chat's open path, {} where there is none."""
        path = self.path(chat)
        return path[-1] if path else {}

    # ---- what a person does ------------------------------------------------------------------

    def start(self) -> None:
        """Start Grove and wait until it can write."""
        self.reader = Reader(self.env, self.grove.command())
        self.reader.see("composer.text")
        self.reader.see("weights.card", "ready")

    def quit(self) -> int:
        """Ctrl+Q, and its end; the exit status."""
        self.reader.press("ctrl+q")
        self.reader.grove.wait(PATIENCE_S)
        return self.reader.close()

    def make_small(self) -> None:
        """A low window: few words fill it."""
        title = ("search", "--onlyvisible", "--name", "Grove")
        self.reader.do(*title, "windowsize", "--sync", "1100", "520")

    def say(self, text: str) -> None:
        """Type into the composer and press Enter."""
        self.reader.click("composer.text")
        self.reader.type(text)
        self.reader.press("Return")

    def stop(self, chat: int = 0, more_than: int = 0) -> Dump:
        """Let the reply at the end come to more than this many characters, then press Escape."""

        def grown() -> bool:
            last = self.last(chat)
            writing = last.get("state") == "streaming"
            return writing and len(words(last)) > more_than + ENOUGH

        self.wait("a growing reply", grown)
        self.reader.press("Escape")
        return self.ended(chat)

    def ended(self, chat: int = 0) -> Dump:
        """Wait until the reply at the end is written no more; that reply."""
        self.wait("the end", lambda: self.last(chat).get("state") == "stopped")
        return self.last(chat)

    def go_up(self, rows: int) -> None:
        """From the composer to the last message, and `rows` messages up from there."""
        self.reader.click("composer.text")
        self.reader.press("shift+Tab")
        self.reader.wait("a message with the focus", lambda: self.message_id() != 0)
        self.reader.press("ctrl+End")
        self.reader.wait("the last message with the focus", self.is_at_end)
        for _ in range(rows):
            # Long messages are scrolled through first.
            self.reader.wait(
                "the message above", functools.partial(self.step_up, self.message_id())
            )

    def step_up(self, here: int) -> bool:
        """One press of Up; whether another message has the focus now."""
        self.reader.press("Up")
        return self.message_id() not in (0, here)

    def message_id(self) -> int:
        """The message with the keyboard, 0 for none."""
        for control in self.reader.controls():
            number = control.id.removeprefix("message.")
            if control.focused and number.isdigit():
                return int(number)
        return 0

    def tab_to(self, identifier: str) -> None:
        """Press Tab until this control has the keyboard."""
        for _ in range(12):
            before = self.focused()
            if identifier in before:
                return
            self.reader.press("Tab")
            self.reader.wait("another focus", lambda before=before: self.focused() != before)  # type: ignore[misc]  # mypy infers no type for it
        raise AssertionError(f"Tab does not lead to {identifier}")

    def focused(self) -> list[str]:
        """The identifiers of what has the keyboard."""
        return [c.id for c in self.reader.controls() if c.focused and c.role != "page tab"]

    def is_at_end(self) -> bool:
        """Whether the lowest message in view has the keyboard."""
        rows = [c for c in self.reader.controls() if c.id.removeprefix("message.").isdigit()]
        return bool(rows) and max(rows, key=lambda row: row.area[1]).focused

    def edit(self, text: str, button: str) -> None:
        """Edit the message with the focus and press one of the editor's buttons."""
        self.tab_to("message.edit")
        self.reader.press("space")
        self.reader.see("message.editor")
        self.reader.press("ctrl+a")
        self.reader.type(text)
        self.reader.click(button)

    def delete(self) -> None:
        """Delete the message with the focus by its menu, whose last entry that is."""
        # Qt leaves open menus out of the tree; they take the keys that follow.
        self.reader.press("Menu", "Up", "Return")

    def told(self) -> str:
        """For a day that ends badly: the open path, and what takes the focus."""
        path = [(m["role"], m["state"], words(m)[:30]) for m in self.path()]
        there = [(c.id, c.name[:30], c.focused) for c in self.reader.controls()]
        return f"Path: {path}\nControls: {there}"

    def shown(self) -> list[tuple[str, int]]:
        """The messages in view and where each begins below the window's top, once nothing moves.

        The window itself may stand elsewhere after a start: there is no window manager here.
        """
        before: list[tuple[str, int]] = []
        end = time.monotonic() + PATIENCE_S
        since = time.monotonic()
        while True:
            top = self.reader.see("page").area[1]
            rows = [
                (control.name, control.area[1] - top)
                for control in self.reader.controls()
                if control.id.removeprefix("message.").isdigit()
            ]
            if rows != before:
                before, since = rows, time.monotonic()
            elif rows and time.monotonic() - since > QUIET_S:
                return sorted(rows)
            assert time.monotonic() < end, "the view does not come to rest"
            time.sleep(0.1)


def chats_in(file: Path) -> list[Dump]:
    """The chats of an export."""
    chats: list[Dump] = json.loads(file.read_text(encoding="utf-8"))["chats"]
    return chats


def words(message: Dump) -> str:
    """The text of a message."""
    return "".join(part.get("text", "") for part in message.get("parts", ()))


def timeless(chats: list[Dump]) -> Any:
    """An export without the times at which rows were last touched."""
    chats = json.loads(json.dumps(chats))
    for chat in chats:
        for facts in (chat["chat"], *chat["messages"]):
            for key in ("updated_at", "edited_at"):
                facts.pop(key, None)
    return chats


# ---- the day ---------------------------------------------------------------------------------


def morning(day: Day) -> None:
    """One chat: ask, stop, continue, ask again, go between versions."""
    day.say("Once upon a time")
    first = day.stop()
    day.reader.click("message.continue")
    longer = day.stop(more_than=len(words(first)))
    assert words(longer).startswith(words(first)), "what was written was not continued"
    for version in (2, 3):
        day.reader.press("ctrl+r")
        day.wait("a new version", lambda: day.last().get("state") == "streaming")
        day.stop()
        assert len(versions(day, longer)) == version
    day.reader.press("alt+Left", "alt+Left")
    day.wait("the first version", lambda: day.last()["uid"] == longer["uid"])
    day.reader.press("alt+Right")
    day.wait("the second version", lambda: day.last()["uid"] == versions(day, longer)[1])
    day.reader.press("alt+Left")
    day.wait("the first version", lambda: day.last()["uid"] == longer["uid"])
    day.say("And then")
    day.wait("the second prompt", lambda: len(day.path()) == 4)
    day.stop()
    day.seen["versions"] = len(versions(day, longer))


def versions(day: Day, reply: Dump) -> list[str]:
    """All versions beside a reply."""
    return [m["uid"] for m in day.held()[0]["messages"] if m["parent"] == reply["parent"]]


def noon(day: Day) -> None:
    """Edit an earlier prompt and ask again, edit a reply, delete a version."""
    before = day.path()
    day.go_up(3)
    day.edit("Twice upon a time", "message.editor.main")
    day.wait("the new version", lambda: words(day.path()[0]) == "Twice upon a time")
    reply = day.stop()
    day.reader.press("alt+Left")
    day.wait(
        "the old version", lambda: [m["uid"] for m in day.path()] == [m["uid"] for m in before]
    )
    day.reader.press("alt+Right")
    day.wait("the new version", lambda: day.last()["uid"] == reply["uid"])
    day.go_up(0)
    day.edit("Mine.", "message.editor.second")
    day.wait("a version of the reply", lambda: words(day.last()) == "Mine.")
    day.go_up(0)
    day.delete()
    day.wait("the version gone", lambda: words(day.last()) != "Mine.")
    day.seen["edited"] = True


def evening(day: Day) -> None:
    """Two chats write at once; one is left, and loses a message meanwhile; all of it undone."""
    day.reader.press("ctrl+n")
    day.say("Another chat")
    day.wait("the second chat", lambda: len(day.held()) == 2)
    day.wait("its reply", lambda: len(words(day.last(1))) > ENOUGH)
    day.reader.press("ctrl+Next")
    day.reader.wait("the first chat", lambda: "Once upon" in day.reader.see("header.title").name)
    day.reader.press("ctrl+r")
    day.wait("two replies", lambda: len(words(day.last(0))) > ENOUGH)
    assert day.last(1)["state"] == "streaming", "the reply in the other chat has ended"
    count = len(day.held()[0]["messages"])
    day.go_up(0)
    day.delete()
    day.wait("the message gone", lambda: len(day.held()[0]["messages"]) < count)
    assert day.last(1)["state"] == "streaming", "the reply in the other chat has ended"
    full = timeless(day.held())[0]
    undone = 0
    while enabled(day, "header.undo"):
        day.reader.press("ctrl+z")
        undone += 1
        assert undone < 60, "undo does not end"
    day.wait("an empty chat", lambda: not day.held()[0]["messages"])
    redone = 0
    while enabled(day, "header.redo"):
        day.reader.press("ctrl+shift+z")
        redone += 1
        assert redone < 60, "redo does not end"
    day.wait("all of it again", lambda: timeless(day.held())[0] == full)
    day.seen["undone"], day.seen["redone"] = undone, redone
    # To the other chat, which is still being written, and back.
    day.reader.press("ctrl+Prior")
    day.reader.wait("the other chat", lambda: "Another" in day.reader.see("header.title").name)
    day.stop(1)


def enabled(day: Day, identifier: str) -> bool:
    """Whether a button can be pressed."""
    control = day.reader.look(identifier)
    return control is not None and control.enabled


def night(day: Day) -> None:
    """Quit while writing, from a place in the middle of the chat; start again; and once more."""
    day.reader.press("ctrl+Next")
    day.reader.wait("the first chat", lambda: "Once upon" in day.reader.see("header.title").name)
    day.say("The end, at last")
    day.wait("a long reply", lambda: len(words(day.last())) > 1200)
    day.go_up(2)  # so far up that the end of the chat does not decide what is in view
    before = day.shown()
    assert day.last()["state"] == "streaming"
    day.seen["status"] = day.quit()
    held = day.export()
    assert day.last()["state"] in ("stopped", "interrupted")
    assert words(day.last())
    day.start()
    after = day.shown()
    assert after == before, f"shown before: {before}, after: {after}"
    assert day.export() == held, "the tree is another one after the start"
    day.reader.click("composer.text")  # without a window manager nobody else gives it the keyboard
    assert day.quit() == 0
    assert day.export() == held, "the tree is another one after a day without work"
    day.seen["in_view"] = len(after)
    day.seen["messages"] = sum(len(chat["messages"]) for chat in held)


def inside() -> dict[str, Any]:
    """The whole day, on a session bus that is there already."""
    with tempfile.TemporaryDirectory() as name, screen(Path(name)) as env:
        folder = Path(name) / "day"
        folder.mkdir()
        day = Day(folder, env)
        started = time.monotonic()
        day.start()
        day.make_small()
        for part in (morning, noon, evening, night):
            try:
                part(day)
            except BaseException:
                print(day.told(), file=sys.stderr)
                day.reader.kill()
                raise
            took_s = time.monotonic() - started
            print(f"{part.__name__}: {took_s:.1f} s", file=sys.stderr)
        day.seen["took_s"] = round(time.monotonic() - started, 1)
        return day.seen


def main() -> int:
    """Live the day on a bus of its own; print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        return run_inside("tests.system.window_day", *(["--json"] if options.json else []))
    seen = inside()
    print(json.dumps(seen) if options.json else ", ".join(f"{k} {v}" for k, v in seen.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
