"""Markdown to blocks: what is shown, what is never lost, and that growing equals whole."""

from __future__ import annotations

import random

import pytest

from desktop_app.ui.block_stream import BlockStream
from desktop_app.ui.blocks import Block, Kind, Look
from desktop_app.ui.markdown import parse, plain_blocks
from desktop_app.ui.safe_text import visible

MIXED = (
    "# Title\n\nText with **bold**, *italic*, ~~gone~~, `code` and $x^2$.\nA second line.\n\n"
    "1. one\n1. two\n   - nested\n     continued\n10. three\n\n- [ ] open\n- [x] done\n\n"
    "> quote\n> > deeper\n\n---\n\n"
     "```python\n" + "x = 1  # comment\n" * 130 + "```\n\n"
    "| a | b |\n|:--|--:|\n" + "| 1 | 2 |\n" * 95
    + "\n$$\na\n- b\n$$\n\n\\[\nc\n+ d\n\\]\n\n~~~\nopen fence\n\n```\ninside\n"
)  # fmt: skip


def texts(blocks: list[Block]) -> list[str]:
    return [block.plain() for block in blocks]


def blocks_of(source: str) -> list[Block]:
    stream = BlockStream()
    stream.feed(source)
    return stream.blocks


def test_looks_of_runs() -> None:
    (block,) = parse("a **b** *c* ~~d~~ `e` ***f***")
    looks = {run.text: run.look for run in block.runs}
    assert looks["b"] == Look.BOLD
    assert looks["c"] == Look.ITALIC
    assert looks["d"] == Look.STRIKE
    assert looks["e"] == Look.CODE
    assert looks["f"] == Look.BOLD | Look.ITALIC


def test_lists_carry_markers_and_depth() -> None:
    shown = [(b.marker, b.depth, b.plain()) for b in blocks_of("1. one\n1. two\n   - nested\n")]
    assert shown == [("1.", 1, "one"), ("2.", 1, "two"), ("•", 2, "nested")]


def test_tasks() -> None:
    assert [b.marker for b in blocks_of("- [ ] a\n- [x] b\n")] == ["☐", "☑"]


def test_maths_in_dollars_and_brackets_and_money_is_no_maths() -> None:
    (block,) = parse("It costs $5 and $10, $x$ and \\(y\\).")
    assert [run.text for run in block.runs if run.look & Look.MATH] == ["x", "y"]
    assert "$5 and $10" in block.plain()
    assert [b.kind for b in parse("$$a$$\n\n\\[b\\]")] == [Kind.MATH, Kind.MATH]
    assert "and so on" in texts(parse("\\[b\\] and so on"))[0]


def test_html_is_text() -> None:
    assert texts(parse("vector<int> and <br> and <script>x</script>")) == [
        "vector<int> and <br> and <script>x</script>"
    ]


def test_links_open_only_known_schemes() -> None:
    (block,) = parse("[a](https://x.org) [b](ftp://y) [c](mailto:m@x.org) https://z.org/p).")
    links = [run.link for run in block.runs if run.link]
    assert links == ["https://x.org", "mailto:m@x.org", "https://z.org/p"]
    assert "(ftp://y)" in block.plain()
    (text,) = parse("[x](file:///etc/passwd) [y](javascript:alert(1))")
    assert not any(run.link for run in text.runs)
    assert "file:///etc/passwd" in text.plain()


def test_images_show_words_and_address() -> None:
    (block,) = parse('![a cat](//server/share/cat.png "Tom")')
    assert "a cat" in block.plain()
    assert "//server/share/cat.png" in block.plain()
    assert "Tom" in block.plain()
    assert not any(run.link for run in block.runs)


@pytest.mark.parametrize(
    "source",
    [
        "[x]: http://example.org/definition 'with title'\n\ntext",
        "| a |\n|---|\n| 1 | lost | cells |\n",
        ">" * 300 + " deep",
        "- " * 200 + "deep",
        "\\[ open brackets\n\nmore",
        "$$ open dollars\n- b\n",
        "```\nunclosed fence",
        "a" * 20_000,
        "[" * 5000 + "word",
        "![" * 3000 + "word",
        "*a " * 3000,
        "<div><p>" * 400 + "text",
        "007. numbered\n\n99999999999. too long a number",
    ],
)
def test_nothing_is_lost(source: str) -> None:
    shown = "".join(
        part
        for block in blocks_of(source)
        for part in (block.plain(), block.language, block.marker, *(run.link for run in block.runs))
    )
    for letter in set(filter(str.isalnum, source)):
        assert shown.count(letter) >= source.count(letter), letter


@pytest.mark.parametrize("seed", range(8))
def test_growing_equals_whole(seed: int) -> None:
    draw = random.Random(seed)
    whole = blocks_of(MIXED)
    stream = BlockStream()
    end = 0
    while end < len(MIXED):
        end += draw.randint(1, 40)
        before = stream.blocks
        kept = stream.finished
        changed = stream.feed(MIXED[:end])
        assert changed >= kept
        assert stream.blocks[:kept] == before[:kept]
    assert stream.blocks == whole


def test_another_text_starts_anew() -> None:
    stream = BlockStream()
    stream.feed("one\n\ntwo\n\nthree")
    stream.feed("other\n\ntwo\n\nthree")
    assert texts(stream.blocks) == ["other", "two", "three"]
    stream.feed("short")
    assert texts(stream.blocks) == ["short"]


def test_long_code_is_cut_and_joined_without_loss() -> None:
    code = "\n".join(f"line {n}" for n in range(500)) + "\n" + "x" * 9000
    blocks = blocks_of(f"```text\n{code}\n```\nafter")
    pieces = [block for block in blocks if block.kind is Kind.CODE]
    assert len(pieces) > 5
    text = pieces[0].text
    for piece in pieces[1:]:
        assert piece.joined
        text += ("\n" if piece.line_break else "") + piece.text
    assert text == code
    assert [piece.open for piece in pieces] == [True] * (len(pieces) - 1) + [False]


def test_a_fence_that_just_opened_shows_its_language() -> None:
    (block,) = blocks_of("```python\n")
    assert (block.kind, block.language, block.text) == (Kind.CODE, "python", "")


def test_long_tables_are_cut_with_one_head() -> None:
    blocks = blocks_of("| a | b |\n|---|---|\n" + "".join(f"| {n} | x |\n" for n in range(200)))
    tables = [block.table for block in blocks if block.table is not None]
    assert len(tables) == 10
    assert [bool(table.head) for table in tables] == [True] + 9 * [False]
    assert sum(len(table.rows) for table in tables) == 200


def test_a_prompt_is_text_and_fences() -> None:
    stream = BlockStream(markdown=False)
    stream.feed("# no heading\n  * as typed\n\n```py\nx = 1\n```\nafter")
    assert [block.kind for block in stream.blocks] == [Kind.TEXT, Kind.CODE, Kind.TEXT]
    assert stream.blocks[0].plain() == "# no heading\n  * as typed"


def test_time_limit_leaves_a_rest_that_another_call_takes() -> None:
    text = "Some words in a paragraph.\n\n" * 4000
    stream = BlockStream()
    stream.feed(text, limit_ms=1)
    assert stream.rest
    while stream.rest:
        stream.feed(text, limit_ms=1)
    assert len(stream.blocks) == 4000


def test_trailing_blank_lines_leave_no_rest() -> None:
    stream = BlockStream()
    stream.feed("text\n\n\n\n")
    assert stream.rest == ""


def test_hidden_characters_are_shown() -> None:
    assert visible("a\u202eb") == "a⟨U+202E⟩b"
    assert visible("\x1b[31m\x00") == "␛[31m␀"
    assert visible("\ufdd0\ud800\ufffc\u200b") == "⟨U+FDD0⟩⟨U+D800⟩⟨U+FFFC⟩⟨U+200B⟩"
    assert visible("a\r\nb\rc\u2028d") == "a\nb\nc\nd"
    assert visible("tab\tstays\n") == "tab\tstays\n"
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    assert visible(flag) == flag
    assert visible("\U000e0041") == "⟨U+E0041⟩"
    assert visible("가나다 👨‍👩‍👧 é") == "가나다 👨‍👩‍👧 é"


def test_entities_cannot_hide_what_is_hidden() -> None:
    assert "⟨U+202E⟩" in texts(parse("a &#8238; b"))[0]


def test_plain_blocks_keep_every_character() -> None:
    text = "word " * 5000
    blocks = plain_blocks(text)
    joined = blocks[0].plain() + "".join(
        ("\n" if block.line_break else "") + block.plain() for block in blocks[1:]
    )
    assert joined == text
