"""Leaving out the oldest turns when a conversation outgrows the context."""

from __future__ import annotations

import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.prompt import PromptBuilder
from desktop_app.inference.protocol import ChatMessage
from tests.unit.inference.conftest import DirectRenderer
from tests.unit.inference.vocabularies import LlamaVocab

SYSTEM = ChatMessage("system", "Be kind.")


def talk(turns: int, *, length: int = 20) -> list[ChatMessage]:
    out = [SYSTEM]
    for turn in range(turns):
        out.append(ChatMessage("user", f"Q{turn:03} " + "x" * length))
        out.append(ChatMessage("assistant", f"A{turn:03} " + "y" * length))
    return out[:-1]


@pytest.fixture
def builder(bpe: LlamaVocab, direct: DirectRenderer) -> PromptBuilder:
    return PromptBuilder(bpe, direct)


def test_what_fits_is_left_alone(builder: PromptBuilder) -> None:
    messages = talk(3)
    fitted = builder.fit(messages, budget=2000, template="chatml")
    assert (fitted.boundary, fitted.left_out) == (None, 0)
    assert fitted.plan == builder.build(messages, template="chatml")


def test_turns_go_down_to_sixty_percent_and_stay_gone(builder: PromptBuilder) -> None:
    budget = 600
    fitted = builder.fit(talk(12), budget=budget, template="chatml")
    used = len(fitted.plan.tokens)
    assert used <= 0.6 * budget
    assert fitted.plan.text.startswith(
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nQ"
    )
    assert fitted.left_out % 2 == 0
    # One turn fewer left out would have been too much.
    kept = [SYSTEM, *talk(12)[1 + fitted.left_out - 2 :]]
    assert len(builder.build(kept, template="chatml").tokens) > 0.6 * budget
    # The boundary holds for the next turns, until it is full again.
    boundary, moved = fitted.boundary, 0
    for turns in range(13, 30):
        now = builder.fit(talk(turns), budget=budget, template="chatml", boundary=boundary)
        assert len(now.plan.tokens) <= budget
        moved += now.boundary != boundary
        boundary = now.boundary
    assert 1 <= moved <= 6


def test_a_boundary_of_another_branch_does_not_count(builder: PromptBuilder) -> None:
    boundary = builder.fit(talk(12), budget=600, template="chatml").boundary
    other = talk(12)
    other[1] = ChatMessage("user", "Something else")
    again = builder.fit(other, budget=5000, template="chatml", boundary=boundary)
    assert again.left_out == 0
    same = builder.fit(talk(12), budget=5000, template="chatml", boundary=boundary)
    assert same.boundary == boundary


def test_the_last_turn_alone_may_fill_the_budget(builder: PromptBuilder) -> None:
    messages = [*talk(3), ChatMessage("assistant", "a"), ChatMessage("user", "z" * 400)]
    fitted = builder.fit(messages, budget=550, template="chatml")
    assert fitted.left_out == len(messages) - 2
    assert 0.6 * 550 < len(fitted.plan.tokens) <= 550


def test_one_message_that_is_too_long(builder: PromptBuilder) -> None:
    messages = [*talk(3), ChatMessage("assistant", "a"), ChatMessage("user", "z" * 900)]
    with pytest.raises(KnownError) as caught:
        builder.fit(messages, budget=500, template="chatml")
    assert caught.value.code == "message-too-long"
    assert "500" in caught.value.sentence


def test_continuing_a_reply_keeps_its_prompt(builder: PromptBuilder) -> None:
    messages = [*talk(12), ChatMessage("assistant", "Half an ans")]
    fitted = builder.fit(messages, budget=600, template="chatml", continue_last=True)
    assert fitted.left_out > 0
    assert fitted.plan.text.endswith("Half an ans")
