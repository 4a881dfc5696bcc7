"""An engine child that misbehaves on request; it speaks the real protocol.

Run as `python -m tests.fakes.faulty_engine FAULT`.  It "loads" anything and replies to a prompt
with the words of its last message, one piece each.  Faults:

- ``none``; ``slow``: a word takes 50 ms;
- ``crash``: aborts after two words, the first time (a file named in GROVE_FAKE_STATE remembers);
- ``crash-always``; ``crash-load``: aborts while loading;
- ``garbage``: a line that is no message, in the middle of a reply;
- ``hang``: writes one word, then ignores everything, even the end of its stdin;
- ``hang-load``: the same while loading;
- ``other-protocol``: says hello in another version;
- ``die``: leaves with status 3 in the middle of a reply.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from desktop_app.inference.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    Command,
    Counters,
    Event,
    Failed,
    Finish,
    Finished,
    Forget,
    Forgotten,
    GenerateRequest,
    Hello,
    Loaded,
    LoadedWeights,
    LoadProgress,
    Piece,
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

FAULT = sys.argv[1] if len(sys.argv) > 1 else "none"
tasks: queue.SimpleQueue[tuple[int, Command]] = queue.SimpleQueue()
cancelled: set[int] = set()


def send(job: int, event: Event) -> None:
    os.write(1, encode(job, event))


def read() -> None:
    for line in sys.stdin.buffer:
        job, command = decode_command(line)
        if isinstance(command, Cancel):
            cancelled.add(job)
        else:
            tasks.put((job, command))
    if not FAULT.startswith("hang"):
        os._exit(0)


def hang() -> NoReturn:
    while True:
        time.sleep(3600)


def abort() -> NoReturn:
    print("fake.cpp:7: GGML_ASSERT(tokens.size() > 0) failed", file=sys.stderr, flush=True)
    os.abort()


def load(job: int, spec: WeightsSpec) -> None:
    for step in range(5):
        send(job, LoadProgress(step / 4))
        if FAULT == "crash-load" and step == 2:
            abort()
        if FAULT == "hang-load" and step == 2:
            hang()
        if FAULT == "slow":
            time.sleep(0.05)
        # One that hangs must not answer a cancel that comes before it does.
        if job in cancelled and FAULT != "hang-load":
            send(job, Failed("cancelled", "Loading was cancelled."))
            return
    info = LoadedWeights(
        path=spec.path,
        name=Path(spec.path).stem,
        architecture="fake",
        description="fake",
        quantisation="F32",
        hash="fake",
        size_bytes=1,
        memory_bytes=1,
        parameters=1,
        context_length=spec.context_length or 2048,
        trained_context=2048,
        vocabulary=1,
        has_template=False,
        template_family="plain",
        threads=1,
        gpu_layers=0,
        offload_reason="",
        kv_type=spec.kv_type,
        flash_attention=False,
        can_roll_back=True,
        sequences=1,
        kv_bytes_per_token=1,
        engine="fake",
    )
    send(job, Loaded(info))


def crash_once() -> None:
    state = Path(os.environ["GROVE_FAKE_STATE"])
    if not state.exists():
        state.write_text("crashed")
        abort()


def misbehave() -> None:
    if FAULT == "crash":
        crash_once()
    elif FAULT == "crash-always":
        abort()
    elif FAULT == "garbage":
        os.write(1, b"Segmentation what? \xff\xfe\n")
    elif FAULT == "hang":
        hang()
    elif FAULT == "die":
        os._exit(3)


def generate(job: int, request: GenerateRequest) -> None:
    words = request.messages[-1].text.split(" ")
    send(job, ReadProgress(len(words), len(words), 0))
    finish: Finish = "stop"
    written = 0
    for number, word in enumerate(words):
        if FAULT == "slow":
            time.sleep(0.05)
        if job in cancelled:
            finish = "cancelled"
            break
        if number == 1:
            misbehave()
        for draft in range(request.drafts):
            send(job, Piece(draft, word if number == 0 else " " + word))
        written += 1
    for draft in range(request.drafts):
        counters = Counters(len(words), 0, len(words), written)
        send(job, Finished(draft, finish, counters, Timings(), {"engine": "fake"}))


def main() -> None:
    """Serve until stdin ends."""
    send(0, Hello(PROTOCOL_VERSION + (FAULT == "other-protocol"), "fake", ()))
    threading.Thread(target=read, daemon=True).start()
    while True:
        job, command = tasks.get()
        if isinstance(command, WeightsSpec):
            load(job, command)
        elif isinstance(command, GenerateRequest):
            generate(job, command)
        elif isinstance(command, RenderRequest):
            send(job, Rendered("\n".join(m.text for m in command.messages), (), ()))
        elif isinstance(command, Unload):
            send(job, Unloaded())
        elif isinstance(command, Forget):
            send(job, Forgotten())


if __name__ == "__main__":
    main()
