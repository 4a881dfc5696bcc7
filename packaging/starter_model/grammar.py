"""A small phrase grammar: text files of templates, expanded at random or turned into patterns.

(a|b) is a choice, [a|b] the same or nothing, {name} a named part, \\( a plain bracket. A file
opens topics with "== topic" and marks every line below by its first character; "name = ..."
defines a part.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_PART = re.compile(r"^([a-z_0-9]+) = (.*)$")


@dataclass(frozen=True, slots=True)
class Ref:
    """A named part."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several sequences; an empty one stands for "left out"."""

    options: tuple[Sequence, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Literals, references and choices one after another."""

    items: tuple[str | Ref | Choice, ...]


def _options(text: str, at: int, closer: str) -> tuple[tuple[Sequence, ...], int]:
    """Parse alternatives up to closer ("" = end of text); returns them and the next index."""
    options: list[Sequence] = []
    items: list[str | Ref | Choice] = []
    literal = ""

    def flush() -> None:
        nonlocal literal
        if literal:
            items.append(literal)
            literal = ""

    while at < len(text):
        char = text[at]
        if closer and char == closer:
            flush()
            options.append(Sequence(tuple(items)))
            return tuple(options), at + 1
        if char == "\\":
            literal += text[at + 1]
            at += 2
        elif char in "([":
            flush()
            inner, at = _options(text, at + 1, ")" if char == "(" else "]")
            if char == "[":
                inner = (*inner, Sequence(()), *(Sequence(()) for _ in inner[1:]))
            items.append(Choice(inner))
        elif char == "{" and (end := text.find("}", at)) > at + 1:
            flush()
            items.append(Ref(text[at + 1 : end]))
            at = end + 1
        elif char == "|":
            flush()
            options.append(Sequence(tuple(items)))
            items = []
            at += 1
        else:
            literal += char
            at += 1
    if closer:
        raise ValueError(f"no {closer} in: {text}")
    flush()
    options.append(Sequence(tuple(items)))
    return tuple(options), at


@cache
def parse(text: str) -> Choice:
    """The syntax tree of one template; raises ValueError at an unclosed bracket."""
    return Choice(_options(text, 0, "")[0])


@dataclass(frozen=True, slots=True)
class Line:
    """One marked line of a topic: for ">" lines, target names the topic they lead to."""

    mark: str
    text: str
    target: str = ""


@dataclass(slots=True)
class Phrases:
    """The templates of one or more files."""

    parts: dict[str, str] = field(default_factory=dict)
    topics: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    shares: dict[str, float] = field(default_factory=dict)

    def read(self, path: Path) -> None:
        """Add a file's parts and topics; raises ValueError at a line without meaning."""
        topic = ""
        for raw in path.read_text(encoding="utf-8").splitlines():
            text = raw.rstrip()
            if not text or text.startswith("#"):
                continue
            if text.startswith("== "):
                topic = text[3:]
            elif text[:2] in {"? ", "* ", "! ", "- ", "+ ", "k "} and topic:
                self.topics[topic].append(Line(text[0], text[2:]))
            elif text.startswith("> ") and topic:
                target, _, template = text[2:].partition(" : ")
                self.topics[topic].append(Line(">", template, target))
            elif match := _PART.match(text):
                self.parts[match[1]] = match[2]
            else:
                raise ValueError(f"{path.name}: {text}")

    def lines(self, topic: str, mark: str) -> list[Line]:
        """The topic's lines with this mark."""
        return [line for line in self.topics.get(topic, ()) if line.mark == mark]

    def expand(self, text: str, rng: random.Random) -> str:
        """One random expansion of a template, spaces tidied."""
        out: list[str] = []
        self._expand(parse(text), rng, out)
        return tidy("".join(out))

    def _expand(self, choice: Choice, rng: random.Random, out: list[str]) -> None:
        for item in rng.choice(choice.options).items:
            if isinstance(item, str):
                out.append(item)
            elif isinstance(item, Choice):
                self._expand(item, rng, out)
            elif item.name in BUILT_IN:
                out.append(BUILT_IN[item.name](rng))
            else:
                self._expand(parse(self.parts[item.name]), rng, out)

    def count(self, text: str) -> float:
        """How many expansions a template has (made-up words and numbers count as 50)."""
        return self._count(parse(text))

    def _count(self, choice: Choice) -> float:
        total = 0.0
        for option in choice.options:
            product = 1.0
            for item in option.items:
                if isinstance(item, Choice):
                    product *= self._count(item)
                elif isinstance(item, Ref):
                    known = item.name in BUILT_IN
                    product *= 50.0 if known else self._count(parse(self.parts[item.name]))
            total += product
        return total

    def pick(self, lines: list[Line], rng: random.Random) -> Line:
        """A line drawn by the logarithm of how many expansions it has."""
        return rng.choices(lines, [self._weight(line.text) for line in lines])[0]

    def _weight(self, text: str) -> float:
        if text not in self.shares:
            self.shares[text] = min(max(math.log2(1 + self.count(text)), 1.0), 14.0)
        return self.shares[text]

    def pattern(self, text: str) -> str:
        """A regular expression for everything the template can expand to, plain() applied."""
        return self._pattern(parse(text))

    def _pattern(self, choice: Choice) -> str:
        options = []
        for option in choice.options:
            pieces = []
            for item in option.items:
                if isinstance(item, str):
                    # A space may vanish in tidying when what stands beside it was left out.
                    pieces.append(re.sub(r"(\\ )+", " *", re.escape(plain(item, strip=False))))
                elif isinstance(item, Choice):
                    pieces.append(self._pattern(item))
                elif item.name in BUILT_IN:
                    # A made-up word that happens to be a real one is not counted as known.
                    pieces.append(r"\d+(?:\.\d)?" if item.name == "num" else "(?!)")
                else:
                    pieces.append(self._pattern(parse(self.parts[item.name])))
            options.append("".join(pieces))
        return "(?:" + "|".join(dict.fromkeys(options)) + ")"


def tidy(text: str) -> str:
    """Collapse runs of spaces and take those before punctuation away."""
    return re.sub(r" +([,;?]|\.(?!\w))", r"\1", re.sub(r" {2,}", " ", text)).strip()


def plain(text: str, *, strip: bool = True) -> str:
    """Lower case without punctuation: the form in which questions are compared."""
    text = re.sub(r"[^\w\s+‹›/<>=*×÷-]", "", text.lower())
    return re.sub(r"\s+", " ", text).strip() if strip else text


_ONSET_TEXT = "b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl pr sk sl st tr qu sh ch th"
_ONSETS = _ONSET_TEXT.split()
_VOWELS = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ea", "ou", "y"]
_CODAS = ["", "", "", "n", "r", "s", "t", "l", "m", "ck", "nd", "st", "x", "p", "ng"]
_ENDINGS = ["", "", "", "", "ing", "er", "ed", "tion", "ism", "ous", "ly", "ium", "ology", "ette"]


def made_up_word(rng: random.Random) -> str:
    """A word in no dictionary, shaped like an English one."""
    count = rng.choice((1, 2, 2, 2, 3))
    word = "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count)
    )
    return word + rng.choice(_ENDINGS)


def made_up_korean(rng: random.Random) -> str:
    """Two to four random syllables, mostly without a final consonant."""
    finals = (0, 0, 0, 1, 4, 8, 16, 17, 21)
    return "".join(
        chr(
            0xAC00
            + rng.randrange(19) * 588
            + rng.choice((0, 1, 4, 5, 8, 13, 18, 20)) * 28
            + rng.choice(finals)
        )
        for _ in range(rng.randint(2, 4))
    )


def number(rng: random.Random) -> str:
    """A number as people type it, mostly small."""
    top = rng.choice((12, 12, 100, 100, 1000, 100000))
    value = rng.randrange(top)
    return f"{value}.{rng.randrange(10)}" if rng.random() < 0.06 else str(value)


BUILT_IN = {"num": number, "pseudo": made_up_word, "pseudo_ko": made_up_korean}
