"""Korean through real input methods: Enter, Shift+Enter and Send at every point of a syllable.

    python -m tests.system.ime [--method ibus|fcitx5] [--seed N] [--words N] [--json]

Needs Xvfb, xdotool, dbus-run-session and ibus-hangul or fcitx5-hangul.  What must arrive is
computed by libhangul itself, the library behind both.  Prints N and how many were partial, lost
or doubled; exit status 1 when any was.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import ctypes.util
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Keys of the two-set layout: consonants and vowels as they stand on a Latin keyboard.
CONSONANTS = "rsefaqtdwczxvgREQTW"
VOWELS = "kijuhynbmlOP"
WAIT_S = 5.0


class Hangul:
    """libhangul's two-set automaton: what a run of keys spells."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(ctypes.util.find_library("hangul") or "libhangul.so.1")
        self._lib.hangul_ic_new.restype = ctypes.c_void_p
        self._lib.hangul_ic_new.argtypes = [ctypes.c_char_p]
        for name in ("commit", "preedit"):
            getter = self._getter(name)
            getter.restype = ctypes.POINTER(ctypes.c_uint32)
            getter.argtypes = [ctypes.c_void_p]
        self._lib.hangul_ic_process.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self._lib.hangul_ic_delete.argtypes = [ctypes.c_void_p]

    def _getter(self, name: str) -> ctypes._NamedFuncPointer:
        found: ctypes._NamedFuncPointer = getattr(self._lib, f"hangul_ic_get_{name}_string")
        return found

    def spell(self, keys: str) -> str:
        """The text that `keys` give, the open syllable included."""
        context = self._lib.hangul_ic_new(b"2")
        out = ""
        for key in keys:
            self._lib.hangul_ic_process(context, ord(key))
            out += self._read("commit", context)
        out += self._read("preedit", context)
        self._lib.hangul_ic_delete(context)
        return out

    def _read(self, name: str, context: int) -> str:
        pointer = self._getter(name)(context)
        text = ""
        index = 0
        while pointer[index]:
            text += chr(pointer[index])
            index += 1
        return text


def random_keys(rng: random.Random) -> str:
    """Keys of one to four syllables, cut at any point."""
    keys = ""
    for _ in range(rng.randint(1, 4)):
        keys += rng.choice(CONSONANTS) + rng.choice(VOWELS)
        if rng.random() < 0.5:
            keys += rng.choice("rsfaqtdwczxvg")
    return keys[: rng.randint(1, len(keys))]


@contextlib.contextmanager
def screen() -> Iterator[dict[str, str]]:
    """An X server of our own and a private home; yields the environment."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1000x600x24", "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as file, tempfile.TemporaryDirectory() as home:
        number = file.readline().strip()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("QT_", "IBUS"))}
        env |= {
            "DISPLAY": f":{number}",
            "HOME": home,
            "XDG_CONFIG_HOME": f"{home}/config",
            "XDG_CACHE_HOME": f"{home}/cache",
            "XDG_RUNTIME_DIR": home,
            "GSETTINGS_BACKEND": "keyfile",
            "QT_IM_MODULE": "ibus",
            "XMODIFIERS": "@im=ibus",
            "LANG": "C.UTF-8",
        }
        try:
            yield env
        finally:
            server.terminate()
            server.wait()


def start_method(method: str, env: dict[str, str]) -> list[subprocess.Popen[bytes]]:
    """Start the input method with Hangul switched on."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
    if method == "ibus":
        schema = "org.freedesktop.ibus.engine.hangul"
        subprocess.run(
            ["gsettings", "set", schema, "initial-input-mode", "hangul"], check=True, env=env
        )
        daemon = subprocess.Popen(["ibus-daemon", "--panel=disable", "--xim"], **quiet)  # type: ignore[call-overload]  # the keywords come from a dict
        until = time.monotonic() + 20
        while time.monotonic() < until:
            done = subprocess.run(["ibus", "engine", "hangul"], check=False, **quiet)  # type: ignore[call-overload]  # as above
            if done.returncode == 0:
                return [daemon]
            time.sleep(0.2)
        raise SystemExit("ibus did not start")
    folder = Path(env["XDG_CONFIG_HOME"]) / "fcitx5"
    folder.mkdir(parents=True)
    (folder / "profile").write_text(
        "[Groups/0]\nName=Default\nDefault Layout=us\nDefaultIM=hangul\n\n"
        "[Groups/0/Items/0]\nName=hangul\nLayout=\n\n[GroupOrder]\n0=Default\n",
        encoding="utf-8",
    )
    (folder / "config").write_text("[Behavior]\nActiveByDefault=True\n", encoding="utf-8")
    # Asking for it makes D-Bus start another one, without our environment: ours takes its place.
    command = ["fcitx5", "--replace", "--disable=wayland"]
    daemon = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]  # as above
    until = time.monotonic() + 20
    while time.monotonic() < until:
        done = subprocess.run(["fcitx5-remote"], check=False, **quiet)  # type: ignore[call-overload]  # as above
        if done.returncode == 0:
            time.sleep(1)  # its ibus front end registers after the name is taken
            return [daemon]
        time.sleep(0.2)
    raise SystemExit("fcitx5 did not start")


class Window:
    """The composer's window, driven by keys and the mouse."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.composer_window"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
        )
        self._lines: queue.Queue[dict[str, object]] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            place = self._lines.get(timeout=30)["ready"]
        except queue.Empty:
            self.close()
            raise
        assert isinstance(place, dict)
        self._place: dict[str, int] = place
        self.click_text()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))

    def do(self, *words: str) -> None:
        """One xdotool call."""
        subprocess.run(["xdotool", *words], check=True, env=self._env)

    def click_text(self) -> None:
        """Give the text the focus."""
        self.do("mousemove", str(self._place["x"]), str(self._place["y"]), "click", "1")

    def click_send(self) -> None:
        """Click Send."""
        x, y = str(self._place["send_x"]), str(self._place["send_y"])
        self.do("mousemove", x, y, "click", "1")

    def next_sent(self) -> str | None:
        """The next message sent; None when none comes."""
        try:
            return str(self._lines.get(timeout=WAIT_S)["sent"])
        except queue.Empty:
            return None

    def no_more(self) -> bool:
        """Whether nothing else was sent."""
        return self._lines.empty()

    def close(self) -> None:
        """End the window."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()


def run(method: str, seed: int, words: int) -> dict[str, object]:
    """Type `words` random words; every third ends in Send, some hold Shift+Enter."""
    rng = random.Random(seed)
    hangul = Hangul()
    wrong: list[dict[str, str | None]] = []
    with screen() as env:
        daemons = start_method(method, env)
        window: Window | None = None
        try:
            window = Window(env)
            if method == "fcitx5":  # active per input context: after the field has the focus
                time.sleep(0.5)
                subprocess.run(["fcitx5-remote", "-s", "hangul"], check=True, env=env)
            for index in range(words):
                first, second = random_keys(rng), random_keys(rng)
                way = ("enter", "send", "shift-enter")[index % 3]
                typed = ["key", "--delay", str(rng.choice((5, 12, 25))), *first]
                if way == "shift-enter":
                    typed += ["shift+Return", *second]
                expected = hangul.spell(first)
                if way == "shift-enter":
                    expected += "\n" + hangul.spell(second)
                if way == "send":
                    window.do(*typed)
                    window.click_send()
                else:
                    window.do(*typed, "Return")
                got = window.next_sent()
                if way == "send":
                    # Only now: a click would move the cursor into the middle of the text.
                    window.click_text()
                if got != expected or not window.no_more():
                    wrong.append({"way": way, "keys": first, "expected": expected, "got": got})
        finally:
            if window is not None:
                window.close()
            for daemon in daemons:
                daemon.terminate()
                daemon.wait()
    return {"method": method, "seed": seed, "n": words, "wrong": len(wrong), "cases": wrong[:20]}


def main() -> None:
    """Run inside a D-Bus session of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=("ibus", "fcitx5"), default="ibus")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--words", type=int, default=90)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        missing = [n for n in ("Xvfb", "xdotool", "dbus-run-session") if not shutil.which(n)]
        if missing:
            sys.exit(f"missing here: {', '.join(missing)}")
        words = ["dbus-run-session", "--", sys.executable, "-m", "tests.system.ime", "--inside"]
        sys.exit(subprocess.run([*words, *sys.argv[1:]], check=False, cwd=ROOT).returncode)
    result = run(options.method, options.seed, options.words)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(f"{result['method']}: n={result['n']}, wrong={result['wrong']}")
        print(json.dumps(result["cases"], ensure_ascii=False, indent=1))
    sys.exit(1 if result["wrong"] else 0)


if __name__ == "__main__":
    main()
