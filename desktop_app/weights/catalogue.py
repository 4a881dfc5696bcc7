"""The weights that Grove suggests: ``resources/catalogue.json``, checked by its schema in tests.

Read only; nothing here connects to anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from desktop_app.errors import KnownError
from desktop_app.paths import resources_dir

from .fit import (
    COMFORTABLE_TOKENS_PER_SECOND,
    Fit,
    Load,
    Machine,
    Plan,
    SpeedBook,
    load_of_size,
    predict,
)


@dataclass(frozen=True, slots=True)
class CatalogueChoice:
    """One size of an entry.  `estimated` sizes were computed, not read from a listing."""

    label: str
    size_bytes: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One suggestion."""

    id: str
    title: str
    maker: str
    family: str
    repository: str
    parameters_billion: float
    context_length: int
    licence: str
    languages: tuple[str, ...]
    # "oasst", "chatml", "llama2", or "template" for the file's own
    prompt: str
    sentence: str
    quantisations: tuple[CatalogueChoice, ...]
    file_pattern: str = ""
    active_parameters_billion: float = 0.0

    def load(self, choice: CatalogueChoice) -> Load:
        """What this size would need, before its header is known."""
        load = load_of_size(choice.size_bytes, choice.label, self.context_length)
        if self.active_parameters_billion:
            share = self.active_parameters_billion / self.parameters_billion
            load = replace(
                load, read_bytes={kind: int(n * share) for kind, n in load.read_bytes.items()}
            )
        return load


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An entry with the size that suits this computer and how it will run."""

    entry: CatalogueEntry
    choice: CatalogueChoice
    fit: Fit
    # Exactly one suggestion of a list is the recommended one, if any runs well.
    recommended: bool = False


class Catalogue:
    """All entries, Open-Assistant families first."""

    def __init__(self, entries: tuple[CatalogueEntry, ...]) -> None:
        self.entries = entries

    @classmethod
    def load(cls, file: Path | None = None) -> Catalogue:
        """Grove's own catalogue, or the one in `file`."""
        file = file or resources_dir() / "catalogue.json"
        data = json.loads(file.read_text(encoding="utf-8"))
        return cls(tuple(_entry(item) for item in data["entries"]))

    def find(self, name: str) -> CatalogueEntry:
        """By id or title.  Raises KnownError ``catalogue-unknown``."""
        wanted = name.casefold()
        for entry in self.entries:
            if wanted in (entry.id.casefold(), entry.title.casefold()):
                return entry
        raise KnownError(
            "catalogue-unknown",
            f"“{name}” is not in the catalogue. Give a repository such as owner/name instead.",
        )

    def suggest(
        self, machine: Machine, speeds: SpeedBook | None = None, plan: Plan | None = None
    ) -> list[Suggestion]:
        """Every entry with its largest size that runs well, else its smallest.

        First the recommended one: the largest weights that run well here.  It changes only for
        one that runs well with room to spare, or when it runs well no more: free memory and speed
        move a little all the time.  `speeds` remembers it.
        """
        found = [self._best(entry, machine, speeds, plan) for entry in self.entries]
        well = [s for s in found if s.fit.verdict == "well"]
        if well:
            before = speeds.recommended if speeds is not None else ""
            tight = replace(machine, free_bytes=machine.free_bytes * 9 // 10)
            sure = [
                s
                for s in well
                if s.entry.id == before
                or _is_sure(predict(s.entry.load(s.choice), tight, speeds, plan))
            ]
            best = max(
                sure or well, key=lambda s: (s.entry.parameters_billion, s.choice.size_bytes)
            )
            found.remove(best)
            found.insert(0, replace(best, recommended=True))
            if speeds is not None:
                speeds.remember_recommended(best.entry.id)
        return found

    def _best(
        self,
        entry: CatalogueEntry,
        machine: Machine,
        speeds: SpeedBook | None,
        plan: Plan | None,
    ) -> Suggestion:
        judged = [
            Suggestion(entry, choice, predict(entry.load(choice), machine, speeds, plan))
            for choice in entry.quantisations
        ]
        judged.sort(key=lambda s: s.choice.size_bytes)
        for verdict in ("well", "slow"):
            # About 4.5 bits a weight is the usual balance: larger ones gain little.
            fitting = [s for s in judged if s.fit.verdict == verdict]
            usual = [s for s in fitting if s.choice.label in ("Q4_K_M", "Q4_0", "MXFP4", "F16")]
            if usual or fitting:
                return (usual or fitting)[-1 if verdict == "well" else 0]
        return judged[0]


def _is_sure(fit: Fit) -> bool:
    """Whether it would run well with a seventh less speed."""
    slowest = COMFORTABLE_TOKENS_PER_SECOND * 1.15
    return fit.verdict == "well" and (fit.tokens_per_second or slowest) >= slowest


def _entry(item: dict[str, Any]) -> CatalogueEntry:
    choices = tuple(CatalogueChoice(**choice) for choice in item["quantisations"])
    return CatalogueEntry(
        **{**item, "languages": tuple(item["languages"]), "quantisations": choices}
    )
