"""The corpus is the same for the same seed, complete, and holds none of the held-out questions."""

import random
import re

import grammar
import noise
import pytest
from corpus import KINDS, PHRASES_DIR, Corpus
from grammar import Phrases, parse, plain, tidy


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(1)


def test_same_seed_same_conversations(corpus: Corpus) -> None:
    again = list(Corpus(1).dialogues(150, 40))
    assert list(corpus.dialogues(150, 40)) == again
    assert list(Corpus(2).dialogues(150, 40)) != again


def test_a_conversation_does_not_depend_on_those_before_it(corpus: Corpus) -> None:
    assert list(corpus.dialogues(1, 77)) == list(corpus.dialogues(10, 70))[7:8]


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_every_topic_can_be_asked_and_answered(corpus: Corpus, lang: str) -> None:
    phrases, facts = corpus.phrases[lang], corpus.facts[lang]
    for topic in facts.topics:
        assert facts.lines(topic, "!"), topic
        assert facts.lines(topic, "-"), topic
        assert facts.lines(topic, "+"), topic
        # Odd input leads to "unclear"; it has no questions of its own.
        assert phrases.lines(topic, "?") or topic == "unclear", topic
    for lines in phrases.topics.values():
        for line in lines:
            assert line.mark != ">" or line.target in facts.topics, line


def test_every_template_parses_and_expands(corpus: Corpus) -> None:
    rng = random.Random(3)
    for phrases in (*corpus.phrases.values(), *corpus.facts.values()):
        for lines in phrases.topics.values():
            for line in lines:
                assert phrases.expand(line.text, rng).strip("|() ") or line.mark == "?", line


def test_answers_follow_the_app_s_wording(corpus: Corpus) -> None:
    for dialogue in corpus.dialogues(3000, 10_000):
        for turn in dialogue.turns:
            assert turn.answer == turn.answer.strip(), turn
            assert "!" not in turn.answer, turn
            assert ".." not in turn.answer, turn
            assert not re.search(r"\bplease\b|\bAI\b|[{}\[\]]", turn.answer), turn
            assert turn.label.split()[2] in KINDS.values(), turn


def test_key_terms_are_in_every_full_answer(corpus: Corpus) -> None:
    terms = {
        "undo": ("undo", "Ctrl+Z"), "redo": ("redo", "Ctrl+Shift+Z"),
        "search": ("search", "Ctrl+K"),
        "again": ("Ask again", "version"), "edit": ("Edit", "Save & ask again", "version"),
        "stop": ("Stop", "Esc", "Continue"), "continue": ("Continue",), "trash": ("trash",),
        "weights": ("Weights", "Hugging Face", ".gguf", "igger"), "outline": ("Outline",),
        "privacy": ("this computer", "othing is sent"), "who": ("Grove guide", "tiny|small"),
        "elsewhere": ("only know", "Grove", "bigger weights"), "pager": ("version",),
    }  # fmt: skip
    facts = corpus.facts["en"]
    rng = random.Random(5)
    for topic, wanted in terms.items():
        for line in facts.lines(topic, "!"):
            for _ in range(30):
                text = facts.expand(line.text, rng)
                found = text.lower()
                for term in wanted:
                    assert any(t in found for t in term.lower().split("|")), (text, term)


def test_grammar_choices_options_parts_and_plain_brackets() -> None:
    phrases = Phrases(parts={"who": "you|me"})
    text = r"(a|b) [c ]{who} \(d\)"
    found = {phrases.expand(text, random.Random(n)) for n in range(200)}
    assert found == {f"{a} {c}{w} (d)" for a in "ab" for c in ("", "c ") for w in ("you", "me")}
    assert phrases.count(text) == 8
    assert all(re.fullmatch(phrases.pattern(text), plain(f)) for f in found)
    with pytest.raises(ValueError, match="no \\)"):
        parse("(a|b")


def test_a_phrase_file_with_a_stray_line_is_refused(tmp_path: object) -> None:
    path = PHRASES_DIR.__class__(str(tmp_path)) / "bad.txt"
    path.write_text("== topic\n? fine\nwhat is this line\n", encoding="utf-8")
    with pytest.raises(ValueError, match="what is this line"):
        Phrases().read(path)


def test_tidy_keeps_file_endings() -> None:
    assert tidy("open  a .gguf file , then .") == "open a .gguf file, then."


def test_noise_is_drawn_from_the_seed_alone() -> None:
    made = [noise.typed("how do i undo that", random.Random(n), lang="en") for n in range(60)]
    assert made == [
        noise.typed("how do i undo that", random.Random(n), lang="en") for n in range(60)
    ]
    assert len(set(made)) > 25
    assert len({noise.odd_input(random.Random(n)) for n in range(60)}) > 40


def test_made_up_words_are_words() -> None:
    for n in range(100):
        assert grammar.made_up_word(random.Random(n)).isalpha()
        assert all("가" <= c <= "힣" for c in grammar.made_up_korean(random.Random(n)))
