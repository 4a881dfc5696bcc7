"""Markdown to blocks, incrementally.

CommonMark with tables, strikethrough, task lists and maths in dollars or brackets, parsed by
markdown-it-py with HTML off.  Link reference definitions are off as well: they would vanish from
view, and one at the end would change blocks far above, where `BlockStream` has long moved on.
A block that would lose letters or digits on the way is shown as it was written (`_lost_text`).
Pure Python, any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

from desktop_app.ui.blocks import Block, Kind, Look, Run, Table
from desktop_app.ui.safe_text import visible
from desktop_app.ui.words import tr

OPENABLE = ("http://", "https://", "mailto:")
"""The only addresses that a click may open."""

_ADDRESS = re.compile(r"https?://[^\s<>\"'`|\\^{}]+", re.IGNORECASE)
_TRAILING = ".,;:!?*_~'\"»”’"
_ENTITY = re.compile(r"&#?\w{1,32};")
_TASK = re.compile(r"\[([ xX])\][ \t\n]")
_NUMBER = re.compile(r"^[ \t>*+-]*(?:\d{1,9}[.)][ \t]+)+", re.MULTILINE)
_ZEROS = re.compile(r"^[ \t>*+-]*0\d{1,8}[.)][ \t]", re.MULTILINE)
_MAX_DEPTH = 12
_MAX_MARKS = 400
"""Above this many marks in one paragraph, inline parsing takes too long (it is quadratic)."""

_MARKS = {
    "strong_open": Look.BOLD,
    "em_open": Look.ITALIC,
    "s_open": Look.STRIKE,
}
_UNMARKS = {"strong_close": Look.BOLD, "em_close": Look.ITALIC, "s_close": Look.STRIKE}


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 60})
    parser.enable(["table", "strikethrough"])
    parser.disable("reference")
    # No spaces inside, no digit outside: "$5 and $10" is money.
    parser.use(
        dollarmath_plugin,
        allow_labels=False,
        allow_space=False,
        allow_digits=False,
        double_inline=True,
    )
    # Bracket maths is ours: the plugin's rule swallows what follows the closing bracket.
    parser.block.ruler.before(
        "fence", "bracket_math_block", _bracket_block, {"alt": ["paragraph", "blockquote", "list"]}
    )
    parser.inline.ruler.before("escape", "bracket_math", _bracket_inline)
    parser.core.ruler.before("inline", "guard", _guard)
    return parser


def _guard(state: StateCore) -> None:
    """Paragraphs with too many marks stay as they were written."""
    for token in state.tokens:
        if token.type == "inline" and sum(map(token.content.count, "*_~[<`$&\\")) > _MAX_MARKS:
            token.type = "plain"


def _bracket_block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    r"""``\[`` at the start of a line up to the line that ends with ``\]``."""
    begin = state.bMarks[first] + state.tShift[first]
    if not state.src.startswith("\\[", begin) or state.is_code_block(first):
        return False
    for line in range(first, last):
        start = begin + 2 if line == first else state.bMarks[line]
        text = state.src[start : state.eMarks[line]]
        close = text.find("\\]")
        if close < 0:
            continue
        if text[close + 2 :].strip(" \t.,;:"):
            return False  # a sentence goes on: the inline rule takes it
        if silent:
            return True
        token = state.push("math_block", "math", 0)
        token.content = state.src[begin + 2 : start + close].strip()
        token.map = [first, line + 1]
        state.line = line + 1
        return True
    return False


def _bracket_inline(state: StateInline, silent: bool) -> bool:
    r"""``\(…\)`` and ``\[…\]`` inside a paragraph."""
    opener = state.src[state.pos : state.pos + 2]
    if opener not in ("\\(", "\\["):
        return False
    end = state.src.find("\\)" if opener == "\\(" else "\\]", state.pos + 2)
    if end < 0 or not state.src[state.pos + 2 : end].strip():
        return False
    if not silent:
        kind = "math_inline" if opener == "\\(" else "math_inline_double"
        token = state.push(kind, "math", 0)
        token.content = state.src[state.pos + 2 : end].strip()
    state.pos = end + 2
    return True


@dataclass(slots=True)
class Element:
    """One top-level element (or one item of a top-level list): source lines and blocks."""

    first_line: int
    end_line: int
    blocks: list[Block]
    kind: str
    next_number: int = 0  # of an ordered list: what the item after this one is


def parse_elements(source: str, *, number: int | None = None) -> list[Element]:
    """Top-level elements of `source` in order; lists are given item by item.

    `number` is the number of the first list item when `source` begins inside an ordered list.
    """
    lines = source.split("\n")
    try:
        tokens = _parser().parse(source)
    except (RecursionError, IndexError, ValueError):
        # A parser that trips over text must not take the text with it.
        return [Element(0, len(lines), plain_blocks(source), "plain")]
    elements: list[Element] = []
    for kind, part in _top_level(tokens):
        if kind in ("bullet_list_open", "ordered_list_open"):
            elements += _list_elements(part, lines, number)
        else:
            elements.append(_element(part, lines, kind))
        number = None
    return elements


def parse(source: str) -> list[Block]:
    """All blocks of a short text at once."""
    return [block for element in parse_elements(source) for block in element.blocks]


def _top_level(tokens: Sequence[Token]) -> Iterable[tuple[str, Sequence[Token]]]:
    start = 0
    for index, token in enumerate(tokens):
        if token.level == 0 and token.nesting <= 0:
            yield tokens[start].type, tokens[start : index + 1]
            start = index + 1


def _element(tokens: Sequence[Token], lines: list[str], kind: str) -> Element:
    first, end = tokens[0].map or [0, len(lines)]
    blocks = _Walk(tokens).blocks()
    source = "\n".join(lines[first:end])
    if _lost_text(source, blocks) or (kind == "table_open" and _lost_cells(source, tokens)):
        blocks = plain_blocks(source)
    return Element(first, end, blocks, kind)


def _list_elements(tokens: Sequence[Token], lines: list[str], number: int | None) -> list[Element]:
    """One element for each item of a top-level list."""
    head, elements, start = tokens[0], [], 1
    ordered = head.type == "ordered_list_open"
    count = int(head.attrGet("start") or 1) if ordered else 0
    if ordered and number is not None:
        count = number
    if not ordered:
        count = 0
    for index, token in enumerate(tokens):
        if token.level == 1 and token.type == "list_item_close":
            part = tokens[start : index + 1]
            first, end = part[0].map or [0, len(lines)]
            walk = _Walk(part)
            walk.enter_list(count if ordered else None)
            blocks = walk.blocks()
            source = "\n".join(lines[first:end])
            if _lost_text(source, blocks):
                blocks = plain_blocks(source)
            count += 1
            kind = "ordered_item" if ordered else "bullet_item"
            elements.append(Element(first, end, blocks, kind, count))
            start = index + 1
    return elements


class _Walk:
    """Turns the tokens of one top-level element into blocks."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._blocks: list[Block] = []
        self._lists: list[int | None] = []  # the next number of each open list, None for bullets
        self._quote = 0
        self._marker = ""
        self._heading = 0

    def enter_list(self, number: int | None) -> None:
        """Begin inside a list whose next item has this number (None: bullets)."""
        self._lists.append(number)

    def blocks(self) -> list[Block]:
        """Walk all tokens."""
        index = 0
        while index < len(self._tokens):
            token = self._tokens[index]
            if token.type == "table_open":
                index = self._table(index)
                continue
            self._step(token)
            index += 1
        self._flush_marker()
        return self._blocks

    def _step(self, token: Token) -> None:
        kind = token.type
        if kind == "inline":
            self._inline(token)
        elif kind == "plain":
            for block in plain_blocks(token.content):
                self._add(block)
        elif kind in ("fence", "code_block"):
            info = visible(token.info.strip())
            self._add(Block(Kind.CODE, text=visible(token.content.rstrip("\n")), language=info))
        elif kind in ("math_block", "amsmath"):
            self._add(Block(Kind.MATH, text=visible(token.content.strip())))
        elif kind == "hr":
            self._add(Block(Kind.RULE))
        elif kind == "heading_open":
            self._heading = int(token.tag[1])
        elif kind == "heading_close":
            self._heading = 0
        elif kind == "blockquote_open":
            self._flush_marker()
            self._quote += 1
        elif kind == "blockquote_close":
            self._quote -= 1
        else:
            self._list_step(token)

    def _list_step(self, token: Token) -> None:
        kind = token.type
        if kind == "bullet_list_open":
            self._flush_marker()
            self._lists.append(None)
        elif kind == "ordered_list_open":
            self._flush_marker()
            self._lists.append(int(token.attrGet("start") or 1))
        elif kind in ("bullet_list_close", "ordered_list_close"):
            self._lists.pop()
        elif kind == "list_item_open":
            number = self._lists[-1]
            self._marker = "•" if number is None else f"{number}."
            if number is not None:
                self._lists[-1] = number + 1
        elif kind == "list_item_close":
            self._flush_marker()

    def _inline(self, token: Token) -> None:
        children = token.children or []
        only = [child for child in children if child.type != "softbreak"]
        if len(only) == 1 and only[0].type == "math_inline_double" and not self._heading:
            self._add(Block(Kind.MATH, text=visible(only[0].content.strip())))
            return
        runs = inline_runs(children)
        if self._marker and runs:
            runs = self._task(runs)
        self._add(Block(Kind.TEXT, runs=runs, heading=self._heading))

    def _task(self, runs: tuple[Run, ...]) -> tuple[Run, ...]:
        """``[ ]`` and ``[x]`` at the start of a list item become its marker."""
        first = runs[0]
        found = _TASK.match(first.text)
        if not found or first.look or first.link:
            return runs
        number = self._marker if self._marker != "•" else ""
        self._marker = f"{number} {'☐' if found[1] == ' ' else '☑'}".strip()
        return (replace(first, text=first.text[found.end() :]), *runs[1:])

    def _add(self, block: Block) -> None:
        depth = min(len(self._lists), _MAX_DEPTH)
        marker, self._marker = self._marker, ""
        quote = min(self._quote, _MAX_DEPTH)
        self._blocks.append(replace(block, depth=depth, quote=quote, marker=marker))

    def _flush_marker(self) -> None:
        """An item without text of its own still shows its marker."""
        if self._marker:
            self._add(Block(Kind.TEXT))

    def _table(self, index: int) -> int:
        rows: list[tuple[tuple[Run, ...], ...]] = []
        align: list[str] = []
        row: list[tuple[Run, ...]] = []
        head: tuple[tuple[Run, ...], ...] = ()
        while (token := self._tokens[index]).type != "table_close":
            if token.type == "th_open":
                style = str(token.attrGet("style") or "")
                align.append(style.partition("text-align:")[2].strip(" ;"))
            elif token.type == "inline":
                row.append(inline_runs(token.children or []))
            elif token.type == "plain":
                row.append((Run(visible(token.content)),))
            elif token.type == "tr_close":
                if head or rows:
                    rows.append(tuple(row))
                else:
                    head = tuple(row)
                row = []
            index += 1
        self._add(Block(Kind.TABLE, table=Table(head, tuple(rows), tuple(align))))
        return index + 1


def inline_runs(children: Sequence[Token]) -> tuple[Run, ...]:
    """The runs of an inline token: equal neighbours joined, bare addresses made links."""
    runs: list[Run] = []
    look = Look.PLAIN
    links: list[tuple[str, str]] = []
    for child in children:
        kind = child.type
        link, tip = links[-1] if links else ("", "")
        if kind in ("text", "text_special", "html_inline", "html_block"):
            runs += _linked(visible(child.content), look, link, tip)
        elif kind in ("softbreak", "hardbreak"):
            runs.append(Run("\n", look, link, tip))
        elif kind == "code_inline":
            runs.append(Run(visible(child.content), look | Look.CODE, link, tip))
        elif kind in ("math_inline", "math_inline_double"):
            size = Look.DISPLAY if kind == "math_inline_double" else Look.PLAIN
            runs.append(Run(visible(child.content), Look.MATH | size, link, tip))
        elif kind in _MARKS:
            look |= _MARKS[kind]
        elif kind in _UNMARKS:
            look &= ~_UNMARKS[kind]
        elif kind == "link_open":
            links.append(_target(child))
        elif kind == "link_close":
            target, _title = links.pop()
            runs += _address_after(target, runs)
        elif kind == "image":
            runs += _image(child, look, link)
        elif child.content:
            runs.append(Run(visible(child.content), look, link, tip))
    return _merged(runs)


def _target(token: Token) -> tuple[str, str]:
    href = visible(str(token.attrGet("href") or ""))
    title = visible(str(token.attrGet("title") or ""))
    return href, title


def openable(address: str) -> bool:
    """Whether a click may open this address."""
    return address.lower().startswith(OPENABLE)


def _address_after(target: str, runs: list[Run]) -> list[Run]:
    """An address that cannot be opened is written out, and its text is no link."""
    if openable(target):
        return []
    for index in range(len(runs) - 1, -1, -1):
        if runs[index].link != target:
            break
        runs[index] = replace(runs[index], link="")
    return [Run(f" ({target})", Look.QUIET)] if target else []


def _image(token: Token, look: Look, link: str) -> list[Run]:
    """Images are never fetched: their words and address stand in the text."""
    address = visible(str(token.attrGet("src") or ""))
    title = visible(str(token.attrGet("title") or ""))
    words = visible(token.content) or visible("".join(c.content for c in token.children or []))
    shown = " ".join(part for part in (words, f"“{title}”" if title else "") if part)
    own = address if openable(address) else ""
    label = tr("row.image_of", words=shown) if shown else tr("row.image")
    runs = [Run(label, look, link or own)]
    if address:
        runs.append(Run(f" ({address})", Look.QUIET, own))
    return runs


def _linked(text: str, look: Look, link: str, tip: str) -> list[Run]:
    if link or "://" not in text:
        return [Run(text, look, link, tip)]
    runs, end = [], 0
    for found in _ADDRESS.finditer(text):
        address = found[0].rstrip(_TRAILING)
        while address.endswith(")") and address.count("(") < address.count(")"):
            address = address[:-1].rstrip(_TRAILING)
        if found.start() > end:
            runs.append(Run(text[end : found.start()], look))
        runs.append(Run(address, look, address))
        end = found.start() + len(address)
    if end < len(text):
        runs.append(Run(text[end:], look))
    return runs


def _merged(runs: list[Run]) -> tuple[Run, ...]:
    merged: list[Run] = []
    for run in runs:
        if not run.text:
            continue
        last = merged[-1] if merged else None
        same = last is not None and (last.look, last.link, last.tip) == (
            run.look,
            run.link,
            run.tip,
        )
        if last is not None and same and not run.look & Look.MATH:
            merged[-1] = replace(last, text=last.text + run.text)
        else:
            merged.append(run)
    return tuple(merged)


PLAIN_CUT = 3000
"""Characters of one block of plain text: laid out in about 2 ms."""


def plain_blocks(source: str, *, joined: bool = False) -> list[Block]:
    """`source` as it was written, cut into blocks that are cheap to lay out."""
    text = visible(source).rstrip("\n")
    blocks: list[Block] = []
    line_break = True
    for piece, breaks in cut_text(text, PLAIN_CUT):
        goes_on = joined or bool(blocks)
        runs = tuple(_linked(piece, Look.PLAIN, "", ""))
        blocks.append(Block(Kind.TEXT, runs=runs, joined=goes_on, line_break=line_break))
        line_break = breaks
    return blocks


def cut_text(text: str, size: int) -> Iterable[tuple[str, bool]]:
    """Pieces of at most `size` characters, cut at line ends, else spaces, else anywhere.

    The flag says that a line ended at the cut (its line feed is in neither piece).
    """
    start, length = 0, len(text)
    while length - start > size:
        end = text.rfind("\n", start + size // 2, start + size)
        if end >= 0:
            yield text[start:end], True
            start = end + 1
            continue
        space = text.rfind(" ", start + size // 2, start + size)
        end = space + 1 if space >= 0 else start + size
        yield text[start:end], False
        start = end
    yield text[start:], True


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def _lost_text(source: str, blocks: Sequence[Block]) -> bool:
    """Whether letters or digits of the source are missing from what is shown."""
    if "&" in source:
        source = _ENTITY.sub("", source)
    if any(block.marker for block in blocks):
        if _ZEROS.search(source):
            return True  # "007." would be shown as "7."
        source = _NUMBER.sub("", source)  # numbers are counted on: 1, 1, 1 is shown as 1, 2, 3
    written = _letters(source)
    shown = 0
    for block in blocks:
        shown += _letters(block.plain()) + _letters(block.language) + block.marker.count("☑")
        cells = [block.runs]
        if block.table is not None:
            rows = (block.table.head, *block.table.rows)
            cells += [cell for row in rows for cell in row]
        for runs in cells:
            for address, title in {(run.link, run.tip) for run in runs if run.link}:
                shown += _letters(address) + _letters(title)
    return shown < written


def _lost_cells(source: str, tokens: Sequence[Token]) -> bool:
    """A row with more cells than the head loses them in CommonMark's table rule."""
    columns = sum(token.type == "th_open" for token in tokens)
    for line in source.split("\n")[2:]:
        bars = len(re.findall(r"(?<!\\)\|", line.strip().strip("|")))
        if bars >= columns and "`" not in line:
            return True
    return False
