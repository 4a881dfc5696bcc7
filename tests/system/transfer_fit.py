"""Proof: memory and speed are predicted for generated files of 0.1 to 7 B parameters.

``python -m tests.system.transfer_fit --largest 7 --seed 1``

The first file calibrates the speed, as the first reply on a computer does; the others are
predicted and then really loaded in a child process.  Exit status 1 if memory is off by more than
10 % and 60 MB, or speed by more than 30 %.  Speeds mean little while other programs compute: the
fastest of many steps counts, ``--threads 1`` counts processor time instead of time, and
``--no-speed`` leaves speeds out of the judgement.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from desktop_app.weights.fit import Machine, Plan, SpeedBook, predict
from desktop_app.weights.gguf import read_header
from tests.fakes.hub_files import Shape, write

MODULE = "tests.system.transfer_fit"
# (billions of parameters, shape, context length, KV type)
CASES: list[tuple[float, Shape, int, str]] = [
    (0.5, Shape(24, 1024, 2816, 16, 16, 32000, 4096, "Q8_0"), 2048, "f16"),
    (0.1, Shape(12, 768, 2048, 12, 12, 32000, 2048, "Q8_0"), 2048, "f16"),
    (0.3, Shape(16, 1024, 4096, 16, 8, 32000, 4096, "F16"), 4096, "f16"),
    (0.5, Shape(24, 1024, 2816, 16, 4, 32000, 4096, "Q4_0"), 4096, "q8_0"),
    (1.1, Shape(22, 2048, 5632, 32, 4, 32000, 2048, "Q4_K"), 2048, "f16"),
    (1.2, Shape(16, 2048, 8192, 32, 8, 128256, 131072, "Q8_0", tied=True), 8192, "f16"),
    (3.2, Shape(28, 3072, 8192, 24, 8, 128256, 131072, "Q6_K", tied=True), 4096, "f16"),
    (7.0, Shape(32, 4096, 11008, 32, 32, 32000, 4096, "Q4_K"), 4096, "f16"),
]


def measure(
    path: str, context: int, kv_type: str, mapped: bool, seconds: float, threads: int
) -> dict[str, float]:
    """Load with llama.cpp, read a prompt, write tokens for a while.  In a child process."""
    import llama_cpp as llama

    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama.llama_log_set(silent, None)
    llama.llama_backend_init()
    loading = llama.llama_model_default_params()
    loading.load_mode = 1 if mapped else 0
    weights = llama.llama_model_load_from_file(path.encode(), loading)
    options = llama.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch = context, 512, 512
    options.n_threads = options.n_threads_batch = threads
    if kv_type == "q8_0":
        options.type_k = options.type_v = 8
    current = llama.llama_init_from_model(weights, options)
    # A whole batch, so that all of its buffers are touched; less where that takes minutes.
    length = 512 if Path(path).stat().st_size < 2_000_000_000 else 64
    prompt = (llama.llama_token * 512)(*([1] + [300 + i % 17 for i in range(511)]))
    assert llama.llama_decode(current, llama.llama_batch_get_one(prompt, length)) == 0
    one = (llama.llama_token * 1)(301)
    times: list[float] = []
    # One thread's processor time leaves out what other programs take in between.
    clock = time.thread_time if threads == 1 else time.perf_counter
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = clock()
        if llama.llama_decode(current, llama.llama_batch_get_one(one, 1)) != 0:
            break  # the context is full
        times.append(clock() - begin)
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    resident = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    times.sort()  # the fastest is from a quiet moment of the machine
    return {"resident": resident, "tokens_per_second": 1 / times[0]}


def child(path: Path, context: int, kv_type: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own; large repacked files unmapped, else they are there twice."""
    mapped = path.stat().st_size < 1_500_000_000
    words = [str(path), str(context), kv_type, str(int(mapped)), str(args.seconds)]
    done = subprocess.run(
        [sys.executable, "-m", MODULE, "--child", *words, "--threads", str(args.threads)],
        check=True,
        capture_output=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "mapped": mapped}


def prove(args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    book = SpeedBook()
    rows = []
    fastest = 0.0
    first = work / "first.gguf"
    for number, (billions, shape, context, kv_type) in enumerate(CASES):
        outside = not args.smallest <= billions <= args.largest
        if outside and (number or args.no_speed):
            continue  # the first one is needed for the speed
        path = work / "case.gguf" if number else first
        write(path, shape, seed=args.seed)
        header = read_header(path)
        seen = child(path, context, kv_type, args)
        tokens = 600 if billions < 2 else 100
        plan = Plan(
            context_length=context, kv_type=kv_type, mapped=seen["mapped"], typical_tokens=tokens
        )
        if number == 0:
            fastest = seen["tokens_per_second"]
        elif args.again:
            # On a busy machine the reference, too, needs a quiet moment.
            now = child(first, CASES[0][2], CASES[0][3], args)
            fastest = max(fastest, now["tokens_per_second"])
        if fastest:
            book.record(read_header(first), fastest, context_used=600)
        if number:
            path.unlink()
        fit = predict(header, Machine(10**12, 10**12, 2), book, plan)
        expected = fit.peak_bytes if seen["mapped"] else fit.memory_bytes
        error = expected - seen["resident"]
        rows.append(
            {
                "case": f"{billions} B {shape.kind} {context} {kv_type}",
                "calibrates": number == 0,
                "memory_mb": round(expected / 1e6),
                "measured_mb": round(seen["resident"] / 1e6),
                "memory_ok": abs(error) <= max(0.1 * seen["resident"], 60e6),
                "tokens_per_s": round(fit.tokens_per_second, 1),
                "measured_per_s": round(seen["tokens_per_second"], 1),
                "speed_error": round(fit.tokens_per_second / seen["tokens_per_second"] - 1, 2),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=float, default=7.0, help="billions of parameters")
    parser.add_argument("--smallest", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=8.0, help="writing tokens, each file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="calibrate anew beside each file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hub", default="", help="not needed here; every proof takes it")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        path, context, kv_type, mapped, seconds = args.child
        found = measure(path, int(context), kv_type, mapped == "1", float(seconds), args.threads)
        print(json.dumps(found))
        return 0
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        rows = prove(args, Path(name))
    wrong = [row for row in rows if not row["memory_ok"]]
    if not args.no_speed:
        wrong += [row for row in rows if abs(row["speed_error"]) > 0.3]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
