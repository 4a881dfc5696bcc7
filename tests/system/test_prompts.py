"""A small part of `tests.system.prompts`, for every run: hostile bodies through the real process.

With GROVE_LLAMA_CPP (a checkout of llama.cpp) its vocabularies and templates are used, with
GROVE_LLAMA_SERVER too (a built llama-server) one template is compared with the server.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from desktop_app.inference.prompt import PromptBuilder
from desktop_app.inference.renderer import Renderer
from tests.system.prompts import attack, compare
from tests.unit.inference.hostile import forged_tokens, hostile_messages
from tests.unit.inference.vocabularies import (
    CONTROL,
    LlamaVocab,
    bpe_tokens,
    spm_tokens,
    write_vocabulary,
)

SOURCES = os.environ.get("GROVE_LLAMA_CPP", "")
SERVER = os.environ.get("GROVE_LLAMA_SERVER", "")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = [("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL)]


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    made = Renderer()
    yield made
    made.close()


def test_no_forged_turns_through_the_real_process(tmp_path: Path, renderer: Renderer) -> None:
    tokens, merges = bpe_tokens(*MARKS)
    files = [
        write_vocabulary(tmp_path / "spm.gguf", "spm", spm_tokens(*MARKS)),
        write_vocabulary(tmp_path / "bpe.gguf", "bpe", tokens, merges=merges),
    ]
    draw = random.Random(7)
    for file in files:
        builder = PromptBuilder(LlamaVocab(file), renderer)
        for _ in range(50):
            messages = hostile_messages(draw, builder)
            plan = builder.build(messages, template=TEMPLATE)
            assert forged_tokens(builder, messages, plan.tokens, TEMPLATE) == 0, messages


OWNER = """
import sys, threading, time
import psutil
from desktop_app.inference.renderer import Renderer
renderer = Renderer()
renderer.render("x", [{}])
endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
if sys.argv[1] == "busy":
    threading.Thread(target=renderer.render, args=(endless, [{}]), daemon=True).start()
    while renderer._source != endless or renderer._worker is None:
        time.sleep(0.01)
    while psutil.Process(renderer._worker._process.pid).cpu_times().user < 1:
        time.sleep(0.01)
print(*(child.pid for child in psutil.Process().children()), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_template_processes_end_with_their_owner(state: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    children = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
    assert len(children) == (2 if state == "idle" else 1)
    owner.kill()
    owner.wait()
    owner.stdin.close()
    owner.stdout.close()
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert (len(gone), alive) == (len(children), [])


@pytest.mark.skipif(not SOURCES, reason="GROVE_LLAMA_CPP names no checkout of llama.cpp")
def test_no_forged_turns_in_real_vocabularies(renderer: Renderer) -> None:
    total, forged, _ = attack(Path(SOURCES), renderer, seed=5, count=40)
    assert (total, forged) == (40, 0)


@pytest.mark.skipif(not (SOURCES and SERVER), reason="GROVE_LLAMA_SERVER names no llama-server")
def test_equal_to_the_server(tmp_path: Path, renderer: Renderer) -> None:
    template = Path(SOURCES) / "models" / "templates" / "Qwen-Qwen3-0.6B.jinja"
    cases = compare(template, "llama-spm", Path(SOURCES), SERVER, renderer, tmp_path)
    assert len(cases) == 5
    assert all(case.text_equal for case in cases)
    assert {case.conversation for case in cases if not case.tokens_equal} == {"typed marks"}
    assert not any(case.forged for case in cases)
