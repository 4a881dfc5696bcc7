"""Proof: the memory of the engine's process is predicted, for weights of 0.1 to 7 B parameters.

``python -m tests.system.engine_memory --largest 7 [--work DIR] [--json FILE]``

Files of random numbers are made one after the other (7 B in Q4_K is about 4 GB) and loaded by the
real engine.  While it writes, after a prompt of a whole batch, its resident memory is read: what is
its own and what it has mapped.  Each is compared with `weights.fit.predict`, which sees the header
only.  Exit status 1 when one is off by more than 10 % and by more than 60 MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import Event, GenerateRequest, Piece, WeightsSpec
from desktop_app.inference.sampling import Sampling
from desktop_app.weights.fit import Machine, Plan, predict
from desktop_app.weights.gguf import read_header
from tests.fakes.hub_files import write
from tests.system.transfer_fit import CASES

LOAD_S = 240.0
ALLOWED_SHARE, ALLOWED_BYTES = 0.10, 60_000_000


def resident(pid: int) -> dict[str, int]:
    """Bytes in memory of a process: its own ("private") and all with what it mapped ("all")."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = {
        name: int(value.split()[0]) * 1024
        for name, _, value in (line.partition(":") for line in text.splitlines()[1:])
    }
    private = found["Private_Clean"] + found["Private_Dirty"]
    return {"private": private, "all": found["Rss"]}


def measure(path: Path, context: int, kv_type: Any) -> dict[str, Any]:
    """Load in the real engine, read a prompt and write; what its process takes meanwhile."""
    engine = Engine()
    try:
        spec = WeightsSpec(str(path), context_length=context, kv_type=kv_type)
        info = engine.load(spec).done.result(LOAD_S)
        writes = threading.Event()

        def hear(event: Event) -> None:
            if isinstance(event, Piece):
                writes.set()

        # A whole batch, so that all of its buffers are touched; less where that takes minutes.
        length = 512 if path.stat().st_size < 2_000_000_000 else 64
        prompt = tuple(300 + i % 17 for i in range(length))
        sampling = Sampling(temperature=1, top_k=0, top_p=1, min_p=0, max_tokens=200)
        job = engine.generate(GenerateRequest(prompt_tokens=prompt, sampling=sampling), hear)
        job.done.add_done_callback(lambda _future: writes.set())
        writes.wait(LOAD_S)
        assert engine.child_pid is not None
        found = resident(engine.child_pid)
        job.cancel()
        job.done.result(LOAD_S)
        return {**found, "told": info.memory_bytes, "context": info.context_length}
    finally:
        engine.close()


def prove(args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """One row for each shape."""
    rows = []
    for billions, shape, context, kv_type in CASES:
        if not args.smallest <= billions <= args.largest:
            continue
        path = work / "case.gguf"
        write(path, shape, seed=args.seed)
        plan = Plan(context_length=context, kv_type=kv_type)
        fit = predict(read_header(path), Machine(10**12, 10**12, 2), plan=plan)
        seen = measure(path, context, kv_type)
        path.unlink()
        off = fit.memory_bytes - seen["all"]
        row = {
            "billions": billions,
            "kind": shape.kind,
            "context": context,
            "kv_type": kv_type,
            "predicted": fit.memory_bytes,
            **seen,
            "off_share": round(off / seen["all"], 4),
            "holds": abs(off) <= max(ALLOWED_SHARE * seen["all"], ALLOWED_BYTES),
        }
        rows.append(row)
        print(
            f"{billions} B {shape.kind} {context} {kv_type}: predicted "
            f"{fit.memory_bytes / 1e6:.0f} MB, is {seen['all'] / 1e6:.0f} (its own "
            f"{seen['private'] / 1e6:.0f}), engine told {seen['told'] / 1e6:.0f}: "
            f"{row['off_share']:+.1%}",
            flush=True,
        )
    return rows


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smallest", type=float, default=0.0, help="billions of parameters")
    parser.add_argument("--largest", type=float, default=7.0, help="billions of parameters")
    parser.add_argument("--work", type=Path, help="where the files are made; 4 GB for 7 B")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        rows = prove(args, Path(folder))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    good = sum(row["holds"] for row in rows)
    print(f"N={len(rows)}: {good} within 10 % or 60 MB")
    return 0 if good == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
