"""Paired measurements: two designs in turn, the ratio pair by pair, raw figures kept.

The machines are small and noisy, so no single time is quoted: A and B run alternately and what
counts is the median of the ratios A/B.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Figure:
    """One measured figure against its aim.

    `pairs` holds raw (ours, other) values in `unit`; `ratio` is the median of ours/other.  For a
    figure without a counterpart `values` holds the raw values and `ratio` is None.
    `aim` is words such as ">= 0.97" that are compared with the ratio, or the median value.
    """

    name: str
    unit: str
    aim: str
    pairs: list[tuple[float, float]] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The median of ours/other over all pairs."""
        return statistics.median(a / b for a, b in self.pairs) if self.pairs else None

    @property
    def measured(self) -> float:
        """The number that is compared with the aim."""
        ratio = self.ratio
        return statistics.median(self.values) if ratio is None else ratio

    @property
    def reached(self) -> bool:
        """Whether the aim is met."""
        sign, number = self.aim.split()
        return self.measured >= float(number) if sign == ">=" else self.measured <= float(number)


def alternate(
    name: str,
    unit: str,
    aim: str,
    ours: Callable[[], float],
    other: Callable[[], float],
    *,
    count: int = 15,
    warm_up: int = 1,
    rest_s: float = 0.0,
) -> Figure:
    """Run `ours` and `other` in turn, `count` pairs, each pair in the opposite order of the last.

    Both return a value in `unit`.  The first `warm_up` pairs are not counted.  `rest_s` is waited
    before each run: a server may still be busy with what it answered.
    """

    def rested(run: Callable[[], float]) -> float:
        time.sleep(rest_s)
        return run()

    figure = Figure(name, unit, aim)
    for index in range(count + warm_up):
        if index % 2:
            second = rested(other)
            first = rested(ours)
        else:
            first = rested(ours)
            second = rested(other)
        if index >= warm_up:
            figure.pairs.append((first, second))
    return figure


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex: names the weights in the report."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit() -> str:
    """The commit that was measured, with a mark where the tree has changes."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def _add_to(figures: list[Figure], json_file: Path) -> list[Figure]:
    """The figures of a file, with these pairs and values behind theirs."""
    told = json.loads(json_file.read_text(encoding="utf-8"))["figures"]
    fields = ("name", "unit", "aim", "values", "facts")
    found = {
        one["name"]: Figure(
            **{key: one[key] for key in fields}, pairs=[(a, b) for a, b in one["pairs"]]
        )
        for one in told
    }
    for figure in figures:
        known = found.setdefault(figure.name, Figure(figure.name, figure.unit, figure.aim))
        known.pairs += figure.pairs
        known.values += figure.values
        known.facts |= figure.facts
    return list(found.values())


def report(figures: list[Figure], json_file: Path | None, *, add: bool = False) -> None:
    """Print a line per figure; write every raw pair to `json_file`.

    `add`: what stands in the file stays, and the pairs of figures of the same name are joined.
    """
    if add and json_file and json_file.exists():
        figures = _add_to(figures, json_file)
    for figure in figures:
        mark = "reached" if figure.reached else "NOT reached"
        ratio = "" if figure.ratio is None else " (ratio)"
        count = len(figure.pairs or figure.values)
        print(f"{figure.name}: {figure.measured:.4g}{ratio}, aim {figure.aim}, n={count}: {mark}")
    if json_file:
        data = {
            "commit": commit(),
            "machine": {"processor": platform.processor(), "system": platform.platform()},
            "figures": [
                asdict(f) | {"ratio": f.ratio, "measured": f.measured, "reached": f.reached}
                for f in figures
            ],
        }
        json_file.write_text(json.dumps(data, indent=1), encoding="utf-8")
