"""The shipped weights: size, metadata and vocabulary, read with a tiny header reader of our own."""

import struct
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[3] / "resources" / "weights" / "starter.gguf"
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


class _Reader:
    """Reads little-endian GGUF values one after another."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def scalar(self, code: str) -> int | float | bool:
        size = struct.calcsize("<" + code)
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += size
        assert isinstance(value, int | float | bool)
        return value

    def text(self) -> str:
        length = int(self.scalar("Q"))
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self, kind: int) -> object:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            inner, count = int(self.scalar("I")), int(self.scalar("Q"))
            return [self.value(inner) for _ in range(count)]
        return self.scalar(_SCALARS[kind])


@pytest.fixture(scope="module")
def header() -> tuple[dict[str, object], dict[str, tuple[int, ...]]]:
    reader = _Reader(PATH.read_bytes())
    assert reader.data[:4] == b"GGUF"
    reader.at = 4
    assert reader.scalar("I") == 3
    tensors, values = int(reader.scalar("Q")), int(reader.scalar("Q"))
    facts = {}
    for _ in range(values):
        name = reader.text()
        facts[name] = reader.value(int(reader.scalar("I")))
    shapes = {}
    for _ in range(tensors):
        name = reader.text()
        shapes[name] = tuple(int(reader.scalar("Q")) for _ in range(int(reader.scalar("I"))))
        reader.at += 4 + 8
    return facts, shapes


def test_size_and_parameters(header: tuple[dict[str, object], dict[str, tuple[int, ...]]]) -> None:
    assert PATH.stat().st_size <= 8_000_000
    total = 0
    for shape in header[1].values():
        count = 1
        for length in shape:
            count *= length
        total += count
    assert 2_000_000 < total <= 7_000_000


def test_metadata(header: tuple[dict[str, object], dict[str, tuple[int, ...]]]) -> None:
    facts, _ = header
    assert facts["general.architecture"] == "llama"
    assert facts["general.name"] == "Grove guide"
    assert facts["general.license"] == "Apache-2.0"
    assert "guide to Grove" in str(facts["general.description"])
    assert facts["tokenizer.ggml.model"] == "llama"
    assert facts["tokenizer.ggml.add_space_prefix"] is False
    assert facts["tokenizer.ggml.add_bos_token"] is False


def test_control_tokens_and_bytes(
    header: tuple[dict[str, object], dict[str, tuple[int, ...]]],
) -> None:
    facts, _ = header
    tokens, types = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    assert len(set(tokens)) == len(tokens) == len(types)
    kinds = dict(zip(tokens, types, strict=True))
    for control in ("<|prompter|>", "<|assistant|>", "<|system|>", "</s>"):
        assert kinds[control] == 3
    assert all(kinds[f"<0x{byte:02X}>"] == 6 for byte in range(256))
    assert tokens[int(str(facts["tokenizer.ggml.eos_token_id"]))] == "</s>"


def test_the_chat_template_is_the_oasst_layout(
    header: tuple[dict[str, object], dict[str, tuple[int, ...]]],
) -> None:
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Environment(autoescape=False).from_string(
        str(header[0]["tokenizer.chat_template"])
    )
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    rendered = template.render(messages=messages, eos_token="</s>", add_generation_prompt=True)
    assert rendered == (
        "<|system|>S</s><|prompter|>a</s><|assistant|>b</s><|prompter|>c</s><|assistant|>"
    )
    empty = [{"role": "system", "content": ""}, messages[1]]
    assert template.render(messages=empty, eos_token="</s>", add_generation_prompt=True) == (
        "<|prompter|>a</s><|assistant|>"
    )
