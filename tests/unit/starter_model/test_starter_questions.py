"""The held-out questions: their format, and that the generator cannot produce their phrasings."""

import re
from pathlib import Path

import noise
import pytest
from corpus import PHRASES_DIR, Corpus
from grammar import plain
from questions import Question, read_questions

FOLDER = PHRASES_DIR.parent / "questions"


def wishes(asked: str) -> set[str]:
    """What may stand in a request frame when the whole is asked; itself first of all."""
    found = {asked}
    for frame in noise._REQUESTS["en"]:
        before, _, after = (plain(piece) for piece in frame.partition("{q}"))
        if asked.startswith(before) and asked.endswith(after):
            found.add(asked[len(before) : len(asked) - len(after)].strip())
    return found


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return [q for path in sorted(FOLDER.glob("*.txt")) for q in read_questions(path)]


def test_there_are_enough_of_each_kind(questions: list[Question]) -> None:
    count = {kind: sum(q.kind == kind for q in questions) for kind in ("in", "out", "two")}
    assert count["in"] >= 150
    assert count["out"] >= 50
    assert count["two"] >= 30
    assert len({q.turns for q in questions}) == len(questions)
    assert all(q.must for q in questions if q.kind != "out")


def test_no_template_produces_a_held_out_phrasing(questions: list[Question]) -> None:
    corpus = Corpus(1)
    patterns: list[str] = []
    bare: list[re.Pattern[str]] = []
    for phrases in corpus.phrases.values():
        for lines in phrases.topics.values():
            for line in lines:
                if line.mark == "*":
                    patterns += [re.escape(plain(word)) for word in line.text.split("|")]
                else:
                    patterns.append(phrases.pattern(line.text))
                if line.text.startswith("{how} "):
                    bare.append(re.compile(phrases.pattern(line.text[6:])))
    compiled = [re.compile(pattern) for pattern in patterns]
    # The pattern check itself must be able to find something.
    assert any(p.fullmatch("how do i undo that") for p in compiled)
    for question in questions:
        asked = plain(question.turns[-1])
        assert not any(p.fullmatch(asked) for p in compiled), question.turns
        assert not any(p.fullmatch(wish) for wish in wishes(asked) for p in bare), question.turns


def test_no_held_out_phrasing_is_in_the_corpus(questions: list[Question]) -> None:
    held_out = {plain(q.turns[-1]) for q in questions}
    for dialogue in Corpus(1).dialogues(4000):
        for turn in dialogue.turns:
            assert plain(turn.asked) not in held_out


def test_reading_and_judging(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(
        "# a comment\n\nin :: how? :: undo, Ctrl+Z|Strg+Z :: search\n"
        "two :: first >> second :: Outline\nout :: 1+1\n",
        encoding="utf-8",
    )
    undo, two, out = read_questions(path)
    assert undo.passed("To UNDO, press ctrl+z.")
    assert not undo.passed("To undo, press Esc.")
    assert not undo.passed("Undo with Ctrl+Z or search.")
    assert two.turns == ("first", "second")
    assert out.passed("I only know Grove; get bigger weights.")
    assert out.passed("저는 Grove만 압니다. 더 큰 가중치가 필요합니다.")
    assert not out.passed("2")
    assert not out.passed("Press Ctrl+Z to undo in Grove.")


@pytest.mark.parametrize("line", ["maybe :: what?", "in", "in :: ", "what is this"])
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(f"# one\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.txt, line 2"):
        read_questions(path)
