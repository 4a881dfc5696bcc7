"""Keeps what people write apart from a prompt's structure, down to the token ids.

**The danger.**  A body (a message's text) may hold ``<|im_end|>``, typed or pasted.  Tokenised with
special tokens on, as a template's own marks need it, that text ends the turn.  It may also hold
only ``<|im_`` at its very end, and the template goes on with ``end|>``.

**The way.**  Before a template sees the bodies, every character with which a mark can begin or end
is replaced in them, one for one, by a stand-in: a private-use character that occurs in no body and
not in the template (`Shield.mask`).  So whatever the template does with a body (trims, slices,
joins, quotes), a mark in the rendered text is the template's own exactly if it is spelled without
stand-ins.  Then the stand-ins are turned back, place by place (`Shield.unmask`).

**The tokens.**  Where no mark of the text came out of a body, the whole text is tokenised in one
call, specials on: exactly what llama.cpp's own server does.  Else the text is cut at the template's
own special tokens, as llama.cpp itself cuts it, and what lies between is tokenised as plain text;
where even that gives a forbidden id (SPM merges ``</`` and ``s>`` to the control token), the mark
is cut apart after its first character, and at last character by character.

What is a mark: every control or unknown token's text; every user-defined token's text, except
those that are plain text (white space only as in GPT-NeoX and Gemma, letters only or one single
character as in DeepSeek) unless the template itself uses them; and the textual marks of templates
whose marks are no tokens (``[INST]``), which are spelled in other tokens than the template's.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Final, Protocol


class TokenAttr(IntFlag):
    """What kind of entry a token is; the values are llama.cpp's `llama_token_attr`."""

    UNKNOWN = 1
    UNUSED = 2
    NORMAL = 4
    CONTROL = 8
    USER_DEFINED = 16
    BYTE = 32
    NORMALIZED = 64
    LSTRIP = 128
    RSTRIP = 256
    SINGLE_WORD = 512


class Vocab(Protocol):
    """What prompts need to know of a file's vocabulary.

    `llama.py` satisfies it.  Everything is constant while the weights are loaded; calls may come
    from one thread at a time.
    """

    @property
    def name(self) -> str:
        """`general.name` of the file and, after a blank, the file's own name."""

    @property
    def kind(self) -> str:
        """ "spm", "bpe", "wpm", "ugm", "rwkv", "plamo2" or "none"."""

    @property
    def n_vocab(self) -> int:
        """How many ids there are."""

    @property
    def bos_id(self) -> int:
        """-1 where there is none; so for `eos_id` and `eot_id`."""

    @property
    def eos_id(self) -> int:
        """End of sequence."""

    @property
    def eot_id(self) -> int:
        """End of turn."""

    @property
    def add_bos(self) -> bool:
        """Whether the file wants BOS before every prompt (`llama_vocab_get_add_bos`)."""

    @property
    def chat_template(self) -> str:
        """The file's own Jinja source ("" where it has none)."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """`llama_tokenize` of `text` as UTF-8 with exactly these two flags."""

    def token_text(self, token: int) -> str:
        """The entry's own text (`llama_vocab_get_text`), not the detokenised piece."""

    def token_attributes(self, token: int) -> int:
        """`llama_vocab_get_attr`: `TokenAttr` flags as an integer."""

    def token_piece(self, token: int) -> bytes:
        """`llama_token_to_piece` with special tokens spelled out: the bytes that are shown."""


_C_SPACE: Final = " \t\n\v\f\r"
# White space must stay white space for templates that trim: other characters that str.strip takes.
_SPACE_STAND_INS: Final = "\x1d\x1f\x1c\x1e\x85\u2028\u2029\u205f\u2009\u200a\u2008\u2006\u1680"
_MARKED: Final = TokenAttr.CONTROL | TokenAttr.UNKNOWN
_GUARDS: Final = (".", "|", "0", "a", "e")


class Lexicon:
    """A vocabulary's marks, read once per loaded weights.

    `structural` maps the text of each mark to its id; `forbidden` holds the ids that text out of a
    body may never become.
    """

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab
        self.structural: dict[str, int] = {}
        self.optional: dict[str, int] = {}
        self._strip: dict[int, int] = {}
        forbidden: set[int] = set()
        for token in range(vocab.n_vocab):
            attr = vocab.token_attributes(token)
            if not attr & (_MARKED | TokenAttr.USER_DEFINED):
                continue
            text = vocab.token_text(token)
            if not text:
                continue
            if not attr & _MARKED and _is_plain(text):
                self.optional[text] = token
                continue
            self.structural.setdefault(text, token)
            # Characters that a vocabulary lacks become <unk> honestly, so <unk> is not forbidden.
            if not attr & TokenAttr.UNKNOWN or attr & TokenAttr.CONTROL:
                forbidden.add(token)
            if attr & (TokenAttr.LSTRIP | TokenAttr.RSTRIP):
                self._strip[token] = attr & (TokenAttr.LSTRIP | TokenAttr.RSTRIP)
        self.forbidden = frozenset(forbidden)

    def has(self, *texts: str) -> bool:
        """Whether each of `texts` is a special token of this vocabulary."""
        return all(text in self.structural or text in self.optional for text in texts)

    def text_of(self, token: int) -> str:
        """A token's own text; "" for -1."""
        return self.vocab.token_text(token) if 0 <= token < self.vocab.n_vocab else ""

    def strips(self, token: int) -> int:
        """LSTRIP and RSTRIP of a token."""
        return self._strip.get(token, 0)


def _is_plain(text: str) -> bool:
    """Whether a user-defined token is text rather than a mark (see the module's text)."""
    stripped = text.replace("\u2581", " ").strip()
    return len(stripped) <= 1 or all(char.isalnum() or char.isspace() for char in stripped)


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks that count for one template: special tokens, and marks that are only text."""

    tokens: dict[str, int]
    textual: tuple[str, ...] = ()

    @staticmethod
    def of(lexicon: Lexicon, own_text: str = "", textual: Iterable[str] = ()) -> Marks:
        """All structural tokens, the plain user-defined ones in `own_text`, and `textual`."""
        used = {text: token for text, token in lexicon.optional.items() if text in own_text}
        used = {text: token for text, token in used.items() if text.strip() and len(text) > 1}
        tokens = {**lexicon.structural, **used}
        return Marks(tokens, tuple(text for text in dict.fromkeys(textual) if text not in tokens))

    @property
    def all(self) -> tuple[str, ...]:
        """Every mark's text."""
        return (*self.tokens, *self.textual)


class Shield:
    """Stand-ins for one prompt: chosen so that they occur in none of `bodies` nor in `foreign`."""

    def __init__(self, marks: Marks, bodies: Sequence[str], foreign: str = "") -> None:
        self.marks = marks
        taken = "".join((*bodies, foreign))
        edges = sorted({edge for mark in marks.all for edge in (mark[0], mark[-1])})
        edges = [edge for edge in edges if any(edge in body for body in bodies)]
        private = _free_private(taken)
        spaces = [char for char in _SPACE_STAND_INS if char not in taken]
        self.sentinel = next(private)
        """A private character that stands for nothing: for marking a place."""
        self._to: dict[str, str] = {}
        for edge in edges:
            stand_in = spaces.pop(0) if edge in _C_SPACE and spaces else next(private)
            self._to[edge] = stand_in
        self._from = {stand_in: edge for edge, stand_in in self._to.items()}
        self._mask_table = str.maketrans(self._to)
        self._unmask_table = str.maketrans(self._from)

    def mask(self, body: str) -> str:
        """`body` with stand-ins; as long as before."""
        return body.translate(self._mask_table)

    def settle(self, rendered: str) -> str:
        """Undo what ``tojson(ensure_ascii=True)`` makes of stand-ins (``\\ue000``)."""
        if "\\u" not in rendered:
            return rendered
        for stand_in in (*self._from, self.sentinel):
            rendered = rendered.replace(f"\\u{ord(stand_in):04x}", stand_in)
        return rendered

    def unmask(self, rendered: str) -> str:
        """The text as it is meant; place by place, as long as before."""
        return rendered.translate(self._unmask_table)

    def forged(self, rendered: str) -> list[tuple[int, int, str]]:
        """Where marks stand in the unmasked text that came out of bodies: (start, end, mark)."""
        if not any(stand_in in rendered for stand_in in self._from):
            return []
        text = self.unmask(rendered)
        found = []
        for mark in self.marks.all:
            at = text.find(mark)
            while at >= 0:
                if rendered[at : at + len(mark)] != mark:
                    found.append((at, at + len(mark), mark))
                at = text.find(mark, at + 1)
        return sorted(found)


def _free_private(taken: str) -> Iterator[str]:
    used = set(taken)
    # The escaped spelling must not be there either: see `settle`.
    lowered = taken.lower()
    for code in (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE)):
        if chr(code) not in used and f"\\u{code:04x}" not in lowered:
            yield chr(code)


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """The rendered text from `start` to `end` is a reply that was written as these `tokens`."""

    start: int
    end: int
    tokens: tuple[int, ...]


def tokens_of(
    lexicon: Lexicon, shield: Shield, rendered: str, own: Sequence[OwnTokens] = ()
) -> list[int]:
    """The token ids of a rendered prompt (with stand-ins), without BOS.

    No id out of a body is in `lexicon.forbidden`; all else is as llama.cpp tokenises the text.
    `own` tokens are used where the reply reaches to the next special token or the text's end, so
    that cutting there changes nothing else.
    """
    forged = shield.forged(rendered)
    if not forged and not own:
        text = shield.unmask(rendered)
        return lexicon.vocab.tokenize(text, add_special=False, parse_special=True)
    out: list[int] = []
    longest = max((len(mark) for mark in shield.marks.all), default=0)
    for part in partition(lexicon, shield.marks, rendered):
        if isinstance(part, int):
            out.append(part)
            continue
        start, end = part
        reply = next((span for span in own if span.end == end and span.start >= start), None)
        if reply is not None and lexicon.forbidden.isdisjoint(reply.tokens):
            end = reply.start
        # Spans are sorted by their start; none is longer than the longest mark.
        first = bisect.bisect_left(forged, (start - longest, 0, ""))
        last = bisect.bisect_left(forged, (end, 0, ""))
        inside = [(a - start, b - start, m) for a, b, m in forged[first:last] if b > start]
        if start < end:
            out += _plain_tokens(lexicon, shield, rendered[start:end], inside)
        if end != part[1]:
            assert reply is not None
            out += reply.tokens
    return out


def partition(lexicon: Lexicon, marks: Marks, rendered: str) -> list[int | tuple[int, int]]:
    """Cut a text at its special tokens: ids, and (start, end) of what lies between.

    As llama.cpp's `tokenizer_st_partition`: the longest token first, leftmost first; tokens that
    strip take the white space beside them.
    """
    parts: list[int | tuple[int, int]] = [(0, len(rendered))] if rendered else []
    present = [mark for mark in marks.tokens if mark in rendered]
    for mark in sorted(
        present, key=lambda text: len(text.encode("utf-8", "replace")), reverse=True
    ):
        token = marks.tokens[mark]
        strips = lexicon.strips(token)
        cut: list[int | tuple[int, int]] = []
        for part in parts:
            if isinstance(part, int):
                cut.append(part)
                continue
            start, end = part
            while start < end and (at := rendered.find(mark, start, end)) >= 0:
                left = at
                while strips & TokenAttr.LSTRIP and left > start and rendered[left - 1] in _C_SPACE:
                    left -= 1
                if left > start:
                    cut.append((start, left))
                cut.append(token)
                start = at + len(mark)
                while strips & TokenAttr.RSTRIP and start < end and rendered[start] in _C_SPACE:
                    start += 1
            if start < end:
                cut.append((start, end))
        parts = cut
    return parts


def _plain_tokens(
    lexicon: Lexicon, shield: Shield, rendered: str, forged: list[tuple[int, int, str]]
) -> list[int]:
    """Tokens of text between special tokens, with what bodies forged in it spelled out."""
    text = shield.unmask(rendered)
    tokens = lexicon.vocab.tokenize(text, add_special=False, parse_special=False)
    textual = [span for span in forged if span[2] in shield.marks.textual]
    forbidden = lexicon.forbidden | {
        shield.marks.tokens[mark] for _, _, mark in forged if mark in shield.marks.tokens
    }
    if not textual and forbidden.isdisjoint(tokens):
        return tokens
    apart = {place for start, end, _ in textual for place in range(start + 1, end)}
    for cuts in (
        apart | {start + 1 for start, _, _ in forged},
        apart | {place for start, end, _ in forged for place in range(start, end + 1)},
    ):
        places = sorted(place for place in cuts if 0 < place < len(text))
        tokens = _joined(lexicon.vocab, text, places)
        if forbidden.isdisjoint(tokens):
            return tokens
    # A control token of one character that the vocabulary cannot spell otherwise: leave it out.
    return [token for token in tokens if token not in forbidden]


def _joined(vocab: Vocab, text: str, places: list[int]) -> list[int]:
    """Tokens of `text` cut at `places`, as if it were one run: only its start may get a space."""
    bounds = [0, *places, len(text)]
    out: list[int] = []
    for start, end in itertools.pairwise(bounds):
        piece = text[start:end]
        if start == 0 or vocab.kind not in ("spm", "ugm"):
            out += vocab.tokenize(piece, add_special=False, parse_special=False)
        else:
            out += _without_prefix(vocab, piece)
    return out


def _without_prefix(vocab: Vocab, piece: str) -> list[int]:
    """Tokens of `piece` without the space that SPM puts before the first text.

    A guard character goes first and its tokens are taken off again.  If they stand unmerged before
    the rest, no merge crossed the border, so the rest is what the piece alone gives.
    """
    for guard in _GUARDS:
        head = vocab.tokenize(guard, add_special=False, parse_special=False)
        whole = vocab.tokenize(guard + piece, add_special=False, parse_special=False)
        if whole[: len(head)] == head and len(whole) > len(head):
            return whole[len(head) :]
    return vocab.tokenize(piece, add_special=False, parse_special=False)


_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` as UTF-8 can hold it: half an emoji out of a careless import becomes U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)
