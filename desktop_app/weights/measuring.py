"""What this computer is, and how fast its memory is: measured briefly, robust beside others.

`machine_identity` reads the system; `measure_memory_speed` computes for a quarter of a second on
threads of its own.  Any thread.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_COPY_BYTES: Final = 32 << 20
# Longer than a few copies, shorter than other programs usually stay away.
_MOMENT_S: Final = 0.03


def machine_identity() -> str:
    """What a measurement holds for: processor, cores and memory (GiB).  "" never."""
    memory = round(psutil.virtual_memory().total / (1 << 30))
    return f"{platform.machine()} {_processor()} {os.cpu_count() or 1} {memory}"


def _processor() -> str:
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.lower().startswith(("model name", "cpu part")):
                return line.partition(":")[2].strip()
    return platform.processor()


def measure_memory_speed(threads: int = 0, *, seconds: float = 0.25) -> float:
    """Bytes per second that `threads` threads together read and write by copying.

    A stand-in until real weights have run: copying reads and writes, writing tokens only reads,
    and on laptops both end near the same number of weight bytes per second.
    """
    threads = threads or max(1, psutil.cpu_count(logical=False) or 1)
    copies: list[list[tuple[float, float]]] = [[] for _ in range(threads)]
    start = threading.Barrier(threads)

    def copy(mine: list[tuple[float, float]]) -> None:
        source = ctypes.create_string_buffer(_COPY_BYTES)
        target = ctypes.create_string_buffer(_COPY_BYTES)
        ctypes.memset(source, 1, _COPY_BYTES)
        ctypes.memmove(target, source, _COPY_BYTES)  # touches every page before the clock starts
        start.wait()
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            ctypes.memmove(target, source, _COPY_BYTES)  # other threads run meanwhile
            mine.append((begin, time.perf_counter()))

    workers = [threading.Thread(target=copy, args=(mine,), daemon=True) for mine in copies]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return best_moment([span for mine in copies for span in mine], _COPY_BYTES)


def best_moment(
    copies: Sequence[tuple[float, float]], size_bytes: int, *, span_s: float = _MOMENT_S
) -> float:
    """Bytes per second in the best `span_s` seconds, from (begin, end) of copies of `size_bytes`.

    Other programs only ever take speed away, so the best moment counts, but of all threads at one
    time: the best of each alone is more than the memory gives to all of them.
    """
    if not copies:
        return 0.0
    last = max(end for _, end in copies)
    span_s = min(span_s, last - min(begin for begin, _ in copies))

    def moved(first: float) -> float:
        until = first + span_s
        return sum(
            size_bytes * max(0.0, min(end, until) - max(begin, first)) / (end - begin)
            for begin, end in copies
            if end > begin
        )

    moments = [begin for begin, _ in copies] + [end - span_s for _, end in copies]
    return max(moved(min(moment, last - span_s)) for moment in moments) / span_s
