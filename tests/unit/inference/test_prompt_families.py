"""Layouts of the families, recognition, BOS, continuing, and whole prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.families import alternate, merge_system
from desktop_app.inference.prompt import PromptBuilder
from desktop_app.inference.protocol import ChatMessage
from tests.unit.inference.conftest import CHATML, OASST, DirectRenderer
from tests.unit.inference.vocabularies import (
    CONTROL,
    LlamaVocab,
    bpe_tokens,
    spm_tokens,
    write_vocabulary,
)

TALK = [
    ChatMessage("system", "Be kind."),
    ChatMessage("user", "Hi"),
    ChatMessage("assistant", "Hello!"),
    ChatMessage("user", "Bye"),
]


@pytest.mark.parametrize(
    ("family", "text"),
    [
        (
            "oasst",
            (
                "<|system|>Be kind.</s><|prompter|>Hi</s><|assistant|>Hello!</s>"
                "<|prompter|>Bye</s><|assistant|>"
            ),
        ),
        (
            "chatml",
            (
                "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
                "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
                "<|im_start|>assistant\n"
            ),
        ),
        (
            "llama2",
            "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Bye [/INST]",
        ),
        (
            "llama3",
            (
                "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n"
            ),
        ),
        ("plain", "Be kind.\n\nHiHello!\n\nBye"),
    ],
)
def test_layouts(spm: LlamaVocab, direct: DirectRenderer, family: str, text: str) -> None:
    plan = PromptBuilder(spm, direct).build(TALK, template=family)
    assert plan.text == text
    assert plan.tokens[0] == spm.bos_id
    assert plan.tokens[1] != spm.bos_id
    assert plan.family == family
    assert plan.trim_start == (family != "plain")
    assert "".join(plan.pieces(spm)).count("Hello!") == 1


@pytest.mark.parametrize("family", ["oasst", "chatml", "llama2", "llama3", "plain"])
def test_continuing_ends_in_the_replys_own_words(
    spm: LlamaVocab, bpe: LlamaVocab, direct: DirectRenderer, family: str
) -> None:
    for vocab in (spm, bpe):
        talk = [*TALK, ChatMessage("assistant", "Good<|im_end|> b")]
        builder = PromptBuilder(vocab, direct)
        plan = builder.build(talk, template=family, continue_last=True)
        before = builder.build(TALK, template=family).text
        gap = " " if family == "llama2" else ""
        assert plan.text == f"{before}{gap}Good<|im_end|> b"
        assert not plan.trim_start


def test_continuing_a_reply_without_words_begins_it(
    bpe: LlamaVocab, direct: DirectRenderer
) -> None:
    builder = PromptBuilder(bpe, direct)
    begun = builder.build([*TALK, ChatMessage("assistant", "")], continue_last=True)
    assert begun == builder.build(TALK)
    # There is no reply to continue: the same as a new one.
    assert builder.build(TALK, continue_last=True) == begun


def test_continuing_within_reasoning(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    talk = [*TALK, ChatMessage("assistant", "", reasoning="Let me s")]
    plan = PromptBuilder(bpe, direct).build(talk, template="chatml", continue_last=True)
    assert plan.text.endswith("<|im_start|>assistant\n<think>\nLet me s")
    assert plan.reasoning_open


@pytest.mark.parametrize(
    ("name", "marks", "family"),
    [
        ("OpenAssistant Llama2 13B Orca 8K 3319", OASST, "oasst"),
        ("whatever", OASST, "oasst"),
        ("oasst-sft-4-pythia-12b", (), "oasst"),
        ("CodeLlama-13B-OASST-SFT-v10", CHATML, "chatml"),
        ("llama2-70b-oasst-sft-v10", CHATML, "chatml"),
        ("whatever", CHATML, "chatml"),
        ("Some 7B base", CHATML, "plain"),
        ("Llama-2-7B-Chat", (), "llama2"),
        ("CodeLlama-7B-Instruct", (), "llama2"),
        ("Llama-2-7B", (), "plain"),
        ("stories260K", (), "plain"),
    ],
)
def test_recognition_by_name_and_marks(
    tmp_path: Path,
    direct: DirectRenderer,
    name: str,
    marks: tuple[tuple[str, int], ...],
    family: str,
) -> None:
    path = write_vocabulary(tmp_path / "w.gguf", "spm", spm_tokens(*marks), name=name)
    assert PromptBuilder(LlamaVocab(path), direct).family() == family


def test_llama3_marks_need_a_name_that_says_chat(tmp_path: Path, direct: DirectRenderer) -> None:
    marks = [(text, CONTROL) for text in ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")]
    for name, family in (("Meta-Llama-3-8B", "plain"), ("Meta-Llama-3-8B-Instruct", "llama3")):
        path = write_vocabulary(tmp_path / f"{name}.gguf", "spm", spm_tokens(*marks), name=name)
        assert PromptBuilder(LlamaVocab(path), direct).family() == family


def test_the_files_own_template_comes_first(tmp_path: Path, direct: DirectRenderer) -> None:
    path = write_vocabulary(
        tmp_path / "w.gguf",
        "spm",
        spm_tokens(*OASST),
        template="{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{%endfor%}",
    )
    vocab = LlamaVocab(path)
    builder = PromptBuilder(vocab, direct)
    plan = builder.build(TALK[1:2])
    assert (plan.family, plan.text) == ("jinja", "user: Hi\n")
    assert list(plan.tokens[:2]).count(vocab.bos_id) == 1
    assert builder.family("oasst") == "oasst"


def test_no_bos_where_the_training_had_none(tmp_path: Path, direct: DirectRenderer) -> None:
    path = write_vocabulary(
        tmp_path / "w.gguf", "spm", spm_tokens(*CHATML), name="llama2-70b-oasst-sft-v10"
    )
    vocab = LlamaVocab(path)
    assert vocab.bos_id not in PromptBuilder(vocab, direct).build(TALK).tokens


def test_bos_of_the_template_alone(tmp_path: Path, direct: DirectRenderer) -> None:
    tokens, merges = bpe_tokens()
    path = write_vocabulary(tmp_path / "w.gguf", "bpe", tokens, merges=merges, add_bos=False)
    vocab = LlamaVocab(path)
    plan = PromptBuilder(vocab, direct).build(TALK[1:2], template="llama2")
    assert plan.text.startswith("<s>[INST]")
    assert plan.tokens.count(vocab.bos_id) == 1


def test_old_oasst_files_get_the_system_text_in_the_prompt(
    tmp_path: Path, direct: DirectRenderer
) -> None:
    path = write_vocabulary(tmp_path / "w.gguf", "spm", spm_tokens(*OASST[:2]))
    plan = PromptBuilder(LlamaVocab(path), direct).build(TALK[:2])
    assert plan.text == "<|prompter|>Be kind.\nHi</s><|assistant|>"


def test_stops(spm: LlamaVocab, direct: DirectRenderer) -> None:
    builder = PromptBuilder(spm, direct)
    oasst = builder.build(TALK, template="oasst").stops
    assert {"<|prompter|>", "<|assistant|>", "<|system|>", "</s>", "<|im_end|>"} <= set(oasst)
    assert "<|im_end|>" in builder.build(TALK, template="chatml").stops
    assert builder.build(TALK, template="plain").stops == ()


def test_nothing_to_answer(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    for messages in ([], [ChatMessage("system", "")]):
        with pytest.raises(KnownError) as caught:
            PromptBuilder(bpe, direct).build(messages)
        assert caught.value.code == "prompt-empty"


def test_an_unknown_template_is_named(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    with pytest.raises(KnownError) as caught:
        PromptBuilder(bpe, direct).build(TALK, template="vicuna")
    assert caught.value.code == "template-unknown"


def test_half_an_emoji_becomes_a_replacement_character(
    bpe: LlamaVocab, direct: DirectRenderer
) -> None:
    plan = PromptBuilder(bpe, direct).build([ChatMessage("user", "a\ud83d")], template="plain")
    assert plan.text == "a\ufffd"


def test_pieces_join_to_the_text_whole_characters_only(
    bpe: LlamaVocab, direct: DirectRenderer
) -> None:
    plan = PromptBuilder(bpe, direct).build([ChatMessage("user", "안녕 😀")], template="oasst")
    pieces = plan.pieces(bpe)
    assert len(pieces) == len(plan.tokens)
    assert "".join(pieces) == plan.text
    assert "\ufffd" not in "".join(pieces)


def test_own_tokens_of_a_reply_are_kept(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    builder = PromptBuilder(bpe, direct)
    # "hello" spelled by single letters, as sampling may write it.
    written = tuple(
        token
        for letter in "hello"
        for token in bpe.tokenize(letter, add_special=False, parse_special=False)
    )
    talk = [TALK[1], ChatMessage("assistant", "hello", tokens=written), TALK[3]]
    kept = builder.build(talk, template="chatml").tokens
    anew = builder.build([TALK[1], ChatMessage("assistant", "hello"), TALK[3]], template="chatml")
    assert len(kept) == len(anew.tokens) + 4
    assert _holds(kept, written)
    # Edited since: the tokens say something else than the text.
    talk[1] = ChatMessage("assistant", "hello!", tokens=written)
    assert not _holds(builder.build(talk, template="chatml").tokens, written)
    # Forbidden ids never come in this way.
    end = bpe.tokenize("<|im_end|>", add_special=False, parse_special=True)
    talk[1] = ChatMessage("assistant", "<|im_end|>", tokens=tuple(end))
    assert list(builder.build(talk, template="chatml").tokens).count(end[0]) == 3


def test_own_tokens_with_sentencepieces_silent_space(
    spm: LlamaVocab, direct: DirectRenderer
) -> None:
    written = tuple(spm.tokenize("hello", add_special=False, parse_special=False))
    assert spm.token_piece(written[0]).startswith(b" ")
    talk = [TALK[1], ChatMessage("assistant", "hello", tokens=written)]
    builder = PromptBuilder(spm, direct)
    plan = builder.build(talk, template="oasst", continue_last=True)
    assert plan.tokens[-len(written) :] == written
    assert plan.text.endswith("<|assistant|>hello")


def _holds(tokens: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(tokens[i : i + len(part)] == part for i in range(len(tokens)))


def test_forms_of_a_conversation() -> None:
    user, reply, system = "user", "assistant", "system"
    odd = [
        ChatMessage(reply, "greeting"),
        ChatMessage(user, "a"),
        ChatMessage(user, "b"),
        ChatMessage(system, "late"),
        ChatMessage(reply, "c", "why c"),
        ChatMessage(reply, "d", "why d"),
        ChatMessage(user, "e"),
    ]
    assert [(m.role, m.text) for m in alternate(odd)] == [
        (user, ""),
        (reply, "greeting"),
        (user, "a\n\nb"),
        (reply, "c\n\nd"),
        (user, "late\ne"),
    ]
    assert alternate(odd)[3].reasoning == "why c\n\nwhy d"
    assert [m.text for m in merge_system([ChatMessage(system, "s"), ChatMessage(user, "u")])] == [
        "s\nu"
    ]
    assert merge_system([ChatMessage(system, "s")]) == [ChatMessage(user, "s")]
