"""Run the benchmarks: `make bench [JSON=FILE] [ARGS="--only engine --count 15"]`.

Each module in this folder that has `figures(options) -> list[Figure]` takes part; one that measures
in parts names them in `PARTS`, and `--only module.part` runs one of them.  `--add` adds the pairs
to those that stand in the JSON file already: long measurements may be made in slices.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path

import tests.bench
from tests.bench.pairs import Figure, report

Measure = Callable[[argparse.Namespace], list[Figure]]


def measures(only: str) -> Iterator[tuple[str, Measure]]:
    """Name and function of what is asked for: "module", "module.part", or beginnings of these."""
    wanted, _, part = only.partition(".")
    for info in pkgutil.iter_modules(tests.bench.__path__):
        if info.name.startswith("_") or wanted not in info.name:
            continue
        module = importlib.import_module(f"tests.bench.{info.name}")
        parts: dict[str, Measure] = getattr(module, "PARTS", {})
        for name, measure in parts.items():
            if name.startswith(part):
                yield f"{info.name}.{name}", measure
        if hasattr(module, "figures") and not part:
            yield info.name, module.figures


def main() -> None:
    """Collect the figures of every module, print them, write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--add", action="store_true", help="add to the pairs in the JSON file")
    parser.add_argument("--only", default="", help="what to run: module or module.part")
    parser.add_argument("--count", type=int, default=15, help="pairs for each figure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=4000, help="length of the long chat")
    parser.add_argument("--keep", type=Path, help="folder for what takes long to prepare")
    parser.add_argument("--weights", type=Path, help="a GGUF of about 1 B parameters")
    options = parser.parse_args()
    figures: list[Figure] = []
    for name, measure in measures(options.only):
        print(f"{name} …", flush=True)
        figures += measure(options)
    report(figures, options.json, add=options.add)


if __name__ == "__main__":
    main()
