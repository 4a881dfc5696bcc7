"""An engine child without llama.cpp: it speaks the real protocol and writes by script.

The last user message says what the reply does: "count N" writes N words; "wait" writes two words
and waits for a cancel; "crash" writes two words and dies; "fail" fails.  Continuing a reply counts
on.  Weights whose name begins with "bad" cannot be loaded.  A token is a byte of the prompt; 100 of
them are read in a second (so it says), and those of the prompt before are kept.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from desktop_app.inference.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    ChatMessage,
    Command,
    Counters,
    Device,
    Event,
    Failed,
    Finish,
    Finished,
    GenerateRequest,
    HasRead,
    Hello,
    Json,
    Loaded,
    LoadedWeights,
    LoadProgress,
    Piece,
    ReadAhead,
    ReadProgress,
    Rendered,
    RenderRequest,
    Timings,
    Unload,
    Unloaded,
    WeightsSpec,
    decode_command,
    encode,
)

_LOCK = threading.Lock()
_READ_PER_S = 100.0
_SHORT = 200  # a shorter prompt counts ten tokens, whatever it says
_cached = [b""]


def say(job: int, event: Event) -> None:
    with _LOCK:
        sys.stdout.buffer.write(encode(job, event))
        sys.stdout.buffer.flush()


def prompt_of(messages: Sequence[ChatMessage]) -> bytes:
    return "".join(f"<{m.role}>{m.text}" for m in messages).encode()


def kept_of(prompt: bytes) -> int:
    shorter = min(len(prompt), len(_cached[0]))
    pairs = zip(prompt, _cached[0], strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), shorter)


class Reply(threading.Thread):
    """One request, written on a thread of its own."""

    def __init__(self, job: int, request: GenerateRequest) -> None:
        super().__init__(daemon=True)
        self.job = job
        self.request = request
        self.cancels: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.open = set(range(request.drafts))
        self.whole = b""
        self.kept = 0

    def run(self) -> None:
        prompt = next(m.text for m in reversed(self.request.messages) if m.role == "user")
        word, _, number = prompt.partition(" ")
        whole = prompt_of(self.request.messages)
        self.kept, self.whole, _cached[0] = kept_of(whole), whole, whole
        say(self.job, ReadProgress(len(prompt), len(prompt), 0))
        if word == "fail":
            say(self.job, Failed("test-failed", "This reply cannot be written."))
            return
        before = len(self.request.messages[-1].text.split()) if self.request.continue_last else 0
        count = int(number.split()[0]) if word == "count" else 2
        for n in range(before, before + count):
            self._take_cancels()
            for draft in sorted(self.open):
                say(self.job, Piece(draft, f"{n} "))
        if word == "crash":
            print("the fake engine dies", file=sys.stderr, flush=True)
            os._exit(3)
        while word == "wait" and self.open:
            self._cancel(self.cancels.get())
        for draft in sorted(self.open):
            self._finish(draft, "stop", count)

    def _take_cancels(self) -> None:
        while not self.cancels.empty():
            self._cancel(self.cancels.get())

    def _cancel(self, draft: int | None) -> None:
        for one in sorted(self.open) if draft is None else [draft]:
            self._finish(one, "cancelled", 2)

    def _finish(self, draft: int, finish: Finish, count: int) -> None:
        if draft not in self.open:
            return
        self.open.discard(draft)
        counters = Counters(10, 0, 10, count)
        timings = Timings(0.1, 0.1, 0.1, 20.0, 0.1)
        if len(self.whole) > _SHORT:
            fresh = len(self.whole) - self.kept
            counters = Counters(len(self.whole), self.kept, fresh, count)
            timings = replace(timings, read_s=fresh / _READ_PER_S)
        seed = self.request.seeds[draft] if self.request.seeds else 7 + draft
        turn: dict[str, Json] = {"engine": "fake", "seed": seed}
        say(self.job, Finished(draft, finish, counters, timings, turn, tuple(range(count))))


def weights(spec: WeightsSpec) -> LoadedWeights:
    name = Path(spec.path).stem
    return LoadedWeights(
        spec.path, name, "llama", "fake", "F32", "0" * 64, 1000, 2000, 100, 4096, 4096, 64,
        False, "plain", 1, 0, "", "f16", False, True, 8, 16, "fake",
    )  # fmt: skip


def act(job: int, command: Command, replies: dict[int, Reply]) -> None:
    match command:
        case WeightsSpec() if Path(command.path).name.startswith("bad"):
            say(job, Failed("weights-unreadable", "These weights cannot be read."))
        case WeightsSpec():
            say(job, LoadProgress(0.5))
            say(job, Loaded(weights(command)))
        case GenerateRequest():
            replies[job] = Reply(job, command)
            replies[job].start()
        case ReadAhead():
            say(job, HasRead(len(command.messages), 0, len(command.messages)))
        case Cancel(draft=draft):
            if job in replies:
                replies[job].cancels.put(draft)
        case RenderRequest():
            prompt = prompt_of(command.messages)
            text = prompt.decode()
            say(job, Rendered(text, tuple(prompt), tuple(text), kept_tokens=kept_of(prompt)))
        case Unload():
            say(job, Unloaded())
        case _:
            pass


def main() -> None:
    device = Device("CPU", "fake", "cpu", 1, 2)
    say(0, Hello(PROTOCOL_VERSION, "fake engine", (device,)))
    replies: dict[int, Reply] = {}
    for line in sys.stdin.buffer:
        job, command = decode_command(line)
        act(job, command, replies)
    os._exit(0)


if __name__ == "__main__":
    main()
