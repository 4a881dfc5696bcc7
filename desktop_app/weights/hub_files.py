"""A repository's file names read as quantisations.  Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

# As makers write them after ".", "-" or "_", in any case.
_QUANTISATION: Final = re.compile(
    r"(?:^|[.\-_/])"
    r"((?:UD-)?(?:I?Q\d_(?:K_(?:XXL|XL|L|M|S)|K|XXS|XS|S|M|NL(?:_\d_\d)?|XL|[01](?:_\d_\d)?)"
    r"|TQ\d_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))"
    r"(?=$|[.\-_/])",
    re.I,
)
_SHARD: Final = re.compile(r"^(.*)-(\d{5})-of-(\d{5})(\.gguf)$", re.I)
# From small to large, for order; what is not listed comes after.
_ORDER: Final = tuple(
    """IQ1_S IQ1_M TQ1_0 IQ2_XXS TQ2_0 IQ2_XS IQ2_S IQ2_M Q2_K_S Q2_K IQ3_XXS IQ3_XS Q3_K_S IQ3_S
    IQ3_M Q3_K_M Q3_K_L IQ4_XS IQ4_NL MXFP4 Q4_0 Q4_K_S Q4_K_M Q4_1 Q5_0 Q5_K_S Q5_K_M Q5_1 Q6_K
    Q8_0 BF16 F16 F32""".split()  # noqa: SIM905 - a list of strings fills thirty lines
)


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository.  `sha256` is "" where the hub does not tell."""

    path: str
    size_bytes: int
    sha256: str = ""

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True)
class Quantisation:
    """One choice to download: a file, or all parts of a sharded one, in order."""

    # "Q4_K_M"; the file's stem where the name tells none.
    label: str
    # The name without shard numbers.
    name: str
    files: tuple[HubFile, ...]
    # True when parts of a sharded file are not in the repository.
    is_incomplete: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def quantisation_of(name: str) -> str:
    """ "Q4_K_M" of "x.q4_k_m.gguf", "" if the name tells none.  The last one counts."""
    stem = re.sub(r"\.gguf$", "", name, flags=re.I)
    found = [match[1] for match in _QUANTISATION.finditer(stem)]
    if not found:
        return ""
    return found[-1].upper().replace("FP16", "F16").replace("FP32", "F32")


def group_files(
    files: Iterable[HubFile],
) -> tuple[tuple[Quantisation, ...], tuple[HubFile, ...], tuple[HubFile, ...]]:
    """(quantisations from small to large, vision projectors, imatrix files)."""
    groups: dict[str, list[tuple[int, int, HubFile]]] = {}
    projectors: list[HubFile] = []
    imatrix: list[HubFile] = []
    for file in files:
        lower = file.name.lower()
        if "imatrix" in lower:
            imatrix.append(file)
        elif not lower.endswith(".gguf"):
            continue
        elif "mmproj" in lower:
            projectors.append(file)
        else:
            shard = _SHARD.match(file.path)
            key = shard[1] + shard[4] if shard else file.path
            number, count = (int(shard[2]), int(shard[3])) if shard else (1, 1)
            groups.setdefault(key, []).append((number, count, file))
    quantisations = []
    for name, parts in groups.items():
        parts.sort(key=lambda part: part[0])
        complete = [number for number, _, _ in parts] == list(range(1, parts[0][1] + 1))
        stem = PurePosixPath(name).name.rsplit(".", 1)[0]
        # Some makers put the quantisation into the folder's name only.
        label = quantisation_of(PurePosixPath(name).name) or quantisation_of(name) or stem
        quantisations.append(
            Quantisation(label, name, tuple(file for _, _, file in parts), not complete)
        )
    quantisations.sort(key=lambda q: (_rank(q.label), q.size_bytes, q.name))
    return tuple(quantisations), tuple(projectors), tuple(imatrix)


def _rank(label: str) -> int:
    plain = label.removeprefix("UD-")
    plain = re.sub(r"_(XXL|XL)$", "_L" if plain.startswith("Q3") else "_M", plain)
    return _ORDER.index(plain) if plain in _ORDER else len(_ORDER)
