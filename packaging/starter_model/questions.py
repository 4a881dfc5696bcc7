"""The question files: one question a line, "kind :: question :: must appear :: must not"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KINDS = ("in", "out", "two")
# A reply declines when it says that it cannot and points to bigger weights or to Grove.
DECLINES = (
    "only know",
    "can't",
    "cannot",
    "don't know",
    "do not know",
    "not something i know",
    "beyond me",
    "outside what i know",
    "not understand",
    "not clear to me",
    "not sure what you mean",
    "too small",
    "make sense of",
    "i speak english",
    "english, and korean",
    "못 합니다",
    "만 압니다",
    "모릅니다",
    "모르겠습니다",
    "대해서만",
    "할 수 없습니다",
    "대답할 수 없",
    "이해하지 못",
    "만 아는",
    "영어",
)
POINTERS = ("weights", "grove", "가중치")


@dataclass(frozen=True, slots=True)
class Question:
    """One test: the turns to ask in order, and what the last reply must and must not hold."""

    kind: str
    turns: tuple[str, ...]
    must: tuple[tuple[str, ...], ...] = ()
    must_not: tuple[str, ...] = ()

    def passed(self, reply: str) -> bool:
        """Whether a reply is good; case does not count."""
        text = reply.lower()
        if any(term.lower() in text for term in self.must_not):
            return False
        if self.kind == "out" and not (
            any(term in text for term in DECLINES) and any(term in text for term in POINTERS)
        ):
            return False
        return all(any(term.lower() in text for term in terms) for terms in self.must)


def read_questions(path: Path) -> list[Question]:
    """Read a question file; raises ValueError naming the line that cannot be read."""
    found = []
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = raw.strip()
        if not text or text.startswith("#"):
            continue
        fields = [field.strip() for field in text.split("::")]
        if fields[0] not in KINDS or len(fields) < 2 or not fields[1]:
            raise ValueError(
                f"{path.name}, line {number}: not 'kind :: question :: must :: must not'"
            )
        fields += [""] * (4 - len(fields))
        turns = tuple(turn.strip() for turn in fields[1].split(">>"))
        must = tuple(
            tuple(term.strip() for term in terms.split("|") if term.strip())
            for terms in fields[2].split(",")
            if terms.strip()
        )
        must_not = tuple(term.strip() for term in fields[3].split(",") if term.strip())
        found.append(Question(fields[0], turns, must, must_not))
    return found
