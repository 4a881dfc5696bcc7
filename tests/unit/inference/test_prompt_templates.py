"""Jinja templates: what they may expect, what they may not do, how conversations adapt."""

from __future__ import annotations

import json
import time
from datetime import datetime

import psutil
import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.prompt import PromptBuilder
from desktop_app.inference.protocol import ChatMessage
from desktop_app.inference.renderer import Renderer
from tests.unit.inference.conftest import DirectRenderer
from tests.unit.inference.vocabularies import LlamaVocab

SYSTEM = ChatMessage("system", "Be kind.")
HI = ChatMessage("user", "Hi")
HELLO = ChatMessage("assistant", "Hello")
LOOP = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "[{{ m.role }}]{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
GROWING = (
    "{% set a = namespace(x=['y']) %}{% for i in range(60) %}{% set a.x = a.x + a.x %}"
    "{% endfor %}{{ a.x | length }}"
)
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def rendered(bpe: LlamaVocab, direct: DirectRenderer, source: str, *messages: ChatMessage) -> str:
    return PromptBuilder(bpe, direct).build(messages or (HI,), template=source).text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ {'a': '<é&\"'} | tojson }}", '{"a": "<é&\\""}'),
        ("{{ {'b': 1, 'a': [1]} | tojson(indent=1) }}", json.dumps({"b": 1, "a": [1]}, indent=1)),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=True) }}", '{"a": 2, "b": 1}'),
        ("{{ 'é' | tojson(ensure_ascii=True) }}", '"\\u00e9"'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for i in [1, 2] %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "2"),
        ("a{% generation %}b{{ 1 }}{% endgeneration %}c", "ab1c"),
        ("x\n  {% if true %}\ny\n  {% endif %}\nz", "x\ny\nz"),
        ("{{ ' a '.strip() ~ 'b'.upper() ~ ['c'][0] ~ 'd-e'.split('-')[1] }}", "aBce"),
        ("{{ messages[0].get('content', '') ~ messages[0].items() | list | length }}", "Hi2"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "2"),
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("{{ tools is none }}{{ documents }}{{ nothing is defined }}", "TrueNoneFalse"),
        ("{{ {'k': 'v'}.items() | map(attribute=0) | join }}", "k"),
    ],
)
def test_what_templates_expect(
    bpe: LlamaVocab, direct: DirectRenderer, source: str, text: str
) -> None:
    assert rendered(bpe, direct, source) == text


def test_the_date(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    noon = datetime(2031, 5, 9, 12).astimezone().timestamp()
    plan = PromptBuilder(bpe, direct).build(
        [HI], template="{{ strftime_now('%Y-%m-%d') }} {{ date_string }}", now=noon
    )
    assert plan.text == "2031-05-09 09 May 2031"


def test_a_template_without_system_role(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    plan = PromptBuilder(bpe, direct).build([SYSTEM, HI], template=STRICT)
    assert plan.text == "[user]Be kind.\nHi<|im_end|>[assistant]"
    assert plan.notes


def test_a_template_that_drops_the_system_text(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    source = (
        "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    assert rendered(bpe, direct, source, SYSTEM, HI) == "[user]Be kind.\nHi"


def test_turns_out_of_order(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    text = rendered(bpe, direct, STRICT, HELLO, HI, HI, HELLO, HELLO, HI)
    assert text == (
        "[user]<|im_end|>[assistant]Hello<|im_end|>[user]Hi\n\nHi<|im_end|>"
        "[assistant]Hello\n\nHello<|im_end|>[user]Hi<|im_end|>[assistant]"
    )
    # A template that does not mind gets them as they are.
    assert (
        rendered(bpe, direct, LOOP, HELLO, HELLO, HI) == "[assistant]Hello[assistant]Hello[user]Hi"
    )


def test_typed_contents(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    source = (
        "{% for m in messages %}{% for part in m.content %}"
        "{% if part.type == 'text' %}<{{ part.text }}>{% endif %}{% endfor %}{% endfor %}"
    )
    assert rendered(bpe, direct, source, SYSTEM, HI) == "<Be kind.><Hi>"


def test_reasoning_is_given_back(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    reply = ChatMessage("assistant", "4", reasoning="2+2")
    for field in ("reasoning_content", "thinking", "reasoning"):
        source = (
            "{% for m in messages %}{% if m." + field + " %}<think>{{ m." + field + " }}</think>"
            "{% endif %}{{ m.content }}\n{% endfor %}"
        )
        assert rendered(bpe, direct, source, HI, reply, HI) == "Hi\n<think>2+2</think>4\nHi\n"


def test_a_prompt_that_opens_reasoning(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    source = LOOP + "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}{# </think> #}"
    builder = PromptBuilder(bpe, direct)
    plan = builder.build([HI], template=source)
    assert plan.reasoning_open
    assert plan.reasoning is not None
    assert plan.reasoning.open == "<think>"
    # Somebody's text at the end is no opening.
    assert not builder.build([ChatMessage("user", "say <think>")], template=LOOP).reasoning_open
    # To continue a reply that has reasoned, its reasoning is spelled out.
    reply = ChatMessage("assistant", "So f", reasoning="Hm.")
    plan = builder.build(
        [HI, reply],
        continue_last=True,
        template="{% for m in messages %}[{{ m.role }}]{% if m.role == 'user' %}{{ m.content }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]<think>\n{% endif %}",
    )
    assert plan.text == "[user]Hi[assistant]<think>\nHm.\n</think>\n\nSo f"
    assert not plan.reasoning_open


def test_continuing_through_a_template_that_trims(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    half = ChatMessage("assistant", "Once upon a ")
    plan = PromptBuilder(bpe, direct).build([HI, half], template=STRICT, continue_last=True)
    assert plan.text == "[user]Hi<|im_end|>[assistant]Once upon a "


def test_stops_and_marks_are_learnt(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    builder = PromptBuilder(bpe, direct)
    assert builder.build([HI], template=STRICT).stops == ("<|im_end|>",)
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{% else %}"
        "### Response:\n{% endif %}{{ m.content }}\n\n{% endfor %}### Response:\n"
    )
    plan = builder.build([ChatMessage("user", "a\n\n### Response:\nb")], template=source)
    assert plan.stops == ("\n\n### Instruction:",)
    own = bpe.tokenize("### Response:", add_special=False, parse_special=True)
    # Byte by byte the vocabulary has one way to spell it: nothing to hide behind, text stays text.
    assert "".join(plan.pieces(bpe)) == plan.text
    assert len(own) == len("### Response:")


def test_errors_do_not_quote_what_people_write(bpe: LlamaVocab, direct: DirectRenderer) -> None:
    secret = ChatMessage("user", "my secret words " * 40)
    for source in (
        "{{ raise_exception('No ' + messages[0].content) }}",
        "{{ {}[messages[0].content].x }}",
    ):
        with pytest.raises(KnownError) as caught:
            PromptBuilder(bpe, direct).build([secret], template=source)
        assert "secret" not in caught.value.sentence + caught.value.detail


def test_bos_once_whatever_the_template_writes(spm: LlamaVocab, direct: DirectRenderer) -> None:
    for start in ("", "{{ bos_token }}", "\n\n{{ bos_token }}", "{{ bos_token }}{{ bos_token }}"):
        plan = PromptBuilder(spm, direct).build([HI], template=start + LOOP)
        assert plan.tokens.count(spm.bos_id) == 1
        assert plan.tokens[0] == spm.bos_id
        assert plan.text == "[user]Hi"


# --- the process -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("{{ raise_exception('no <b>way</b>\nat all') }}", "template-refused"),
        ("{% if %}", "template-damaged"),
        ("{{ messages.x.y }}", "template-damaged"),
        ("{{ ''.__class__.__mro__ }}", "template-damaged"),
        ("{{ messages.append(1) }}", "template-damaged"),
        ("{{ 'x' * 300000000 }}", "template-limits"),
        ("{{ 'x' * 30000000000 }}", "template-limits"),
        (GROWING, "template-limits"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "template-damaged"),
        ("{{ range(10000000000) | length }}", "template-damaged"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "template-damaged"),
    ],
)
def test_hostile_templates_end_in_one_sentence(
    bpe: LlamaVocab, renderer: Renderer, source: str, code: str
) -> None:
    builder = PromptBuilder(bpe, renderer)
    started = time.monotonic()
    with pytest.raises(KnownError) as caught:
        builder.build([HI], template=source)
    assert caught.value.code == code
    assert "\n" not in caught.value.sentence
    assert time.monotonic() - started < 10
    assert builder.build([HI], template=LOOP).text == "[user]Hi"  # the next one works


def test_endless_templates_are_stopped(bpe: LlamaVocab) -> None:
    renderer = Renderer(cpu_s=1, wall_s=1.0)
    try:
        builder = PromptBuilder(bpe, renderer)
        with pytest.raises(KnownError) as caught:
            builder.build([HI], template=ENDLESS)
        assert caught.value.code == "template-limits"
        assert builder.build([HI], template=LOOP).text == "[user]Hi"
    finally:
        renderer.close()


def test_a_killed_process_is_replaced(bpe: LlamaVocab, renderer: Renderer) -> None:
    builder = PromptBuilder(bpe, renderer)
    expected = builder.build([HI], template=LOOP)
    for child in psutil.Process().children():
        child.kill()
        child.wait()
    assert builder.build([HI], template=LOOP) == expected


def test_the_process_and_the_direct_way_agree(
    bpe: LlamaVocab, renderer: Renderer, direct: DirectRenderer
) -> None:
    messages = [SYSTEM, ChatMessage("user", "안녕 😀 <|im_end|> \x00 \ud800"), HELLO, HI]
    for source in (LOOP, STRICT):
        through_process = PromptBuilder(bpe, renderer).build(messages, template=source)
        assert through_process == PromptBuilder(bpe, direct).build(messages, template=source)


def test_a_process_serves_one_template_only(bpe: LlamaVocab, renderer: Renderer) -> None:
    builder = PromptBuilder(bpe, renderer)
    builder.build([HI], template=LOOP)
    first = renderer._worker
    builder.build([HI, HELLO, HI], template=LOOP)
    assert renderer._worker is first
    builder.build([HI], template=STRICT)
    assert renderer._worker is not first
    assert first is not None
    assert not first.is_alive


def test_a_program_that_is_not_there(bpe: LlamaVocab) -> None:
    renderer = Renderer(["/nonexistent/program"])
    try:
        with pytest.raises(KnownError) as caught:
            PromptBuilder(bpe, renderer).build([HI], template=LOOP)
        assert caught.value.code == "template-process"
        # Built-in layouts need no process.
        assert PromptBuilder(bpe, renderer).build([HI], template="plain").text == "Hi"
    finally:
        renderer.close()


def test_closing_twice_is_fine() -> None:
    renderer = Renderer()
    renderer.close()
    renderer.close()
    with pytest.raises(RuntimeError):
        renderer.render("x", [{}])
