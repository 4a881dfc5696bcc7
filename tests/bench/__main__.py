"""Run the benchmarks: `make bench [JSON=FILE] [ARGS="--only engine --count 15"]`.

Each module in this folder that has `figures(options) -> list[Figure]` takes part.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path

import tests.bench
from tests.bench.pairs import Figure, report


def main() -> None:
    """Collect the figures of every module, print them, write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="run the modules whose name contains this")
    parser.add_argument("--count", type=int, default=15, help="pairs for each figure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="a GGUF of about 1 B parameters")
    options = parser.parse_args()
    figures: list[Figure] = []
    for info in pkgutil.iter_modules(tests.bench.__path__):
        if info.name.startswith("_") or (options.only and options.only not in info.name):
            continue
        measure = getattr(importlib.import_module(f"tests.bench.{info.name}"), "figures", None)
        if measure is not None:
            print(f"{info.name} …", flush=True)
            figures += measure(options)
    report(figures, options.json)


if __name__ == "__main__":
    main()
