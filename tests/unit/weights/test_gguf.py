"""The header reader: what it tells, what it refuses and in which words."""

from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desktop_app.errors import KnownError
from desktop_app.weights.gguf import BytesSource, first_part, part_paths, read_header
from tests.fakes.hub_files import (
    BOOL,
    F32,
    I32,
    STR,
    U16,
    U32,
    Shape,
    array,
    header,
    key,
    spm_vocabulary,
    write,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "good.gguf"
    write(path, Shape(name="Good  weights"))
    return path.read_bytes()


def refused(data: bytes) -> KnownError:
    with pytest.raises(KnownError) as caught:
        read_header(data)
    assert caught.value.sentence.endswith(".")
    return caught.value


def test_tells_what_the_file_says(good: bytes) -> None:
    found = read_header(good)
    assert found.kind == "weights"
    assert (found.architecture, found.title, found.quantisation) == ("llama", "Good weights", "F32")
    assert (found.block_count, found.heads, found.kv_heads, found.key_length) == (2, 4, 2, 16)
    assert found.kv_heads_per_block == (2, 2)
    assert (found.vocab_size, found.context_length) == (320, 2048)
    assert found.has_byte_tokens
    assert found.special_tokens == ("<s>", "</s>")
    assert found.file_bytes == len(good)
    assert found.tensor_bytes == sum(t.size_bytes for t in found.tensors)
    assert found.metadata["general.license"] == "apache-2.0" == found.licence
    assert "tokenizer.ggml.tokens" not in found.metadata


def test_reads_through_ranges_of_any_size(good: bytes) -> None:
    class Slow(BytesSource):
        asked: list[int]

        def read_at(self, offset: int, length: int) -> bytes:
            self.asked.append(length)
            return super().read_at(offset, min(length, len(good)))

    source = Slow(good)
    source.asked = []
    assert read_header(source) == read_header(good)
    assert len(source.asked) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "weights-not-gguf"),
        (b"GG", "weights-not-gguf"),
        (b"PK\x03\x04" + bytes(100), "weights-not-gguf"),
        (b"GGUF", "weights-truncated"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "weights-version-1"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "weights-version"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "weights-big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1), "weights-damaged"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "weights-damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63), "weights-truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key("a", U32, 1)[:-3], "weights-truncated"),
    ],
)
def test_refuses_what_is_no_gguf(data: bytes, code: str) -> None:
    assert refused(data).code == code


def test_cut_anywhere_it_is_truncated(good: bytes) -> None:
    for length in (5, 23, 24, 60, 500, 5000, len(good) - 40):
        assert refused(good[:length]).code == "weights-truncated"


def small(keys: list[bytes]) -> bytes:
    """A file with these keys over those of a small network, tensors zeroed."""
    base = Shape()
    replaced = {k[8 : 8 + struct.unpack_from("<Q", k)[0]] for k in keys}
    kept = [k for k in base.keys() if k[8 : 8 + struct.unpack_from("<Q", k)[0]] not in replaced]  # noqa: SIM118 - not a mapping
    data = header([*kept, *keys], base.tensors())
    return data + bytes(1 << 20)


TOKENS, SCORES, KINDS = spm_vocabulary(320)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([array("tokenizer.ggml.tokens", STR, [*TOKENS[:-1], TOKENS[5]])], "twice"),
        # Equal as C strings only: this aborts llama.cpp.
        ([array("tokenizer.ggml.tokens", STR, [*TOKENS[:-2], "ab\0x", "ab\0y"])], "twice"),
        ([array("tokenizer.ggml.scores", F32, SCORES[:-1])], "scores"),
        ([array("tokenizer.ggml.scores", F32, [*SCORES[:-1], float("nan")])], "score"),
        ([array("tokenizer.ggml.token_type", I32, KINDS[:5])], "token_type"),
        ([array("tokenizer.ggml.token_type", I32, [6] * 320)], "byte token"),
        ([key("tokenizer.ggml.tokens", U32, 5)], "tokens"),
        ([array("tokenizer.ggml.tokens", STR, TOKENS[:100]),
          array("tokenizer.ggml.scores", F32, SCORES[:100]),
          array("tokenizer.ggml.token_type", I32, KINDS[:100])], "table"),
        ([key("llama.block_count", U32, 0)], "block_count"),
        ([key("llama.block_count", U32, 513)], "block_count"),
        ([key("llama.attention.head_count", U32, 5)], "heads"),
        ([key("llama.attention.head_count_kv", U32, 3)], "heads"),
        ([array("llama.attention.head_count_kv", U32, [2, 2, 2])], "head_count_kv"),
        ([key("llama.attention.layer_norm_rms_epsilon", F32, -1.0)], "epsilon"),
        ([key("llama.attention.layer_norm_rms_epsilon", F32, float("inf"))], "epsilon"),
        ([key("llama.rope.scaling.type", STR, "spiral")], "scaling"),
        ([key("llama.rope.dimension_count", U32, 15)], "rotated"),
        ([key("llama.expert_count", U32, 2000)], "expert"),
        ([key("llama.expert_used_count", U32, 2)], "expert"),
        ([key("llama.context_length", STR, "long")], "context_length"),
        ([key("general.alignment", U32, 24)], "alignment"),
        ([key("general.alignment", U32, 8)], "align"),
        ([key("split.count", U32, 2)], "split"),
        ([key("tokenizer.ggml.bos_token_id", U32, 9999),
          array("tokenizer.ggml.tokens", STR, ["a"]),
          array("tokenizer.ggml.scores", F32, [0.0]),
          array("tokenizer.ggml.token_type", I32, [1])], "bos"),
    ],
)  # fmt: skip
def test_refuses_what_takes_the_engine_down(keys: list[bytes], why: str) -> None:
    error = refused(small(keys))
    assert error.code == "weights-damaged"
    assert why in error.detail


def test_missing_keys_are_named(good: bytes) -> None:
    without = [k for k in Shape().keys() if b"llama.context_length" not in k]  # noqa: SIM118 - not a mapping
    error = refused(header(without, Shape().tensors()) + bytes(1 << 20))
    assert "llama.context_length" in error.detail


def test_tensors_must_lie_where_llama_cpp_expects_them(good: bytes) -> None:
    at = good.index(b"blk.0.attn_q.weight") + 19 + 4 + 16 + 4
    moved = bytearray(good)
    moved[at : at + 8] = struct.pack("<Q", struct.unpack_from("<Q", good, at)[0] + 32)
    assert "attn_q" in refused(bytes(moved)).detail
    retyped = bytearray(good)
    retyped[at - 4 : at] = struct.pack("<I", 26)  # I32 has the size of F32 and no kernels
    assert "I32" in refused(bytes(retyped)).detail
    named = good.replace(b"blk.1.attn_q.weight", b"blk.0.attn_q.weight")
    assert "twice" in refused(named).detail


def test_a_vocabulary_alone_is_accepted_but_is_no_weights() -> None:
    data = header([*Shape().keys()], [])
    found = read_header(data)
    assert found.kind == "vocabulary"
    assert found.tensor_count == 0


def test_a_hostile_count_takes_no_memory() -> None:
    keys = [k for k in Shape().keys() if b"block_count" not in k]  # noqa: SIM118 - not a mapping
    found = read_header(header([*keys, key("llama.block_count", U32, 2**32 - 1)], []))
    assert found.kind == "vocabulary"
    assert len(found.kv_heads_per_block) <= 512


def test_kinds_of_files_that_only_accompany_weights() -> None:
    projector = header([key("general.architecture", STR, "clip")], [("v.a", (4, 4), "F16")])
    assert read_header(projector + bytes(64)).kind == "projector"
    adapter = header(
        [key("general.architecture", STR, "llama"), key("general.type", STR, "adapter")],
        [("a.lora_a", (4, 4), "F32")],
    )
    assert read_header(adapter + bytes(64)).kind == "adapter"


def test_encoders_are_no_weights_to_chat_with() -> None:
    data = header([_renamed(k) for k in Shape().keys()], Shape().tensors())  # noqa: SIM118 - as above
    assert read_header(data + bytes(1 << 20)).kind == "encoder"


def _renamed(entry: bytes) -> bytes:
    """The same entry for the architecture "llama-embed"."""
    length = struct.unpack_from("<Q", entry)[0]
    name, rest = entry[8 : 8 + length], entry[8 + length :]
    if name == b"general.architecture":
        return key("general.architecture", STR, "llama-embed")
    name = name.replace(b"llama.", b"llama-embed.", 1) if name.startswith(b"llama.") else name
    return struct.pack("<Q", len(name)) + name + rest


def test_finds_the_markers_of_old_families() -> None:
    tokens = [*TOKENS[:-3], "<|prompter|>", "<|assistant|>", "<|unknown|>"]
    found = read_header(small([array("tokenizer.ggml.tokens", STR, tokens)]))
    assert {"<|prompter|>", "<|assistant|>", "</s>"} == found.markers


def test_without_all_byte_tokens_it_says_so() -> None:
    tokens = [token if token != "<0x0A>" else "nothing" for token in TOKENS]
    kinds = [1 if token == "nothing" else kind for token, kind in zip(tokens, KINDS, strict=True)]
    data = small(
        [
            array("tokenizer.ggml.tokens", STR, tokens),
            array("tokenizer.ggml.token_type", I32, kinds),
        ]
    )
    assert not read_header(data).has_byte_tokens


def parts(folder: Path, count: int = 2) -> list[Path]:
    """A sharded file: keys in the first part, tensors spread."""
    shape = Shape()
    tensors = shape.tensors()
    paths = []
    for number in range(count):
        mine = tensors[number::count]
        keys = [key("split.no", U16, number), key("split.count", U16, count)]
        keys.append(key("split.tensors.count", I32, len(tensors)))
        data = header([*shape.keys(), *keys] if number == 0 else keys, mine)
        path = folder / f"big-{number + 1:05d}-of-{count:05d}.gguf"
        path.write_bytes(data + bytes(1 << 20))
        paths.append(path)
    return paths


def test_parts_are_one_file(tmp_path: Path) -> None:
    paths = parts(tmp_path, 3)
    found = read_header(paths[0])
    assert found.tensor_count == len(Shape().tensors())
    assert found.file_bytes == sum(path.stat().st_size for path in paths)
    assert part_paths(paths[2]) == paths
    assert first_part(paths[1]) == paths[0]
    assert read_header(paths[1]).kind == "part"


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths = parts(tmp_path)
    paths[1].unlink()
    with pytest.raises(KnownError) as caught:
        read_header(paths[0])
    assert caught.value.code == "weights-shard-missing"
    assert paths[1].name in caught.value.detail


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(KnownError, match="not there") as caught:
        read_header(tmp_path / "away.gguf")
    assert caught.value.code == "weights-missing"
    with pytest.raises(KnownError) as caught:
        read_header(tmp_path)
    assert caught.value.code == "weights-unreadable"


def test_many_keys_and_strings_are_bounded() -> None:
    begin = time.perf_counter()
    lots = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    lots += struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 8, 2**40) + bytes(1000)
    assert refused(lots).code == "weights-damaged"
    nested = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    nested += struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 9, 1) + bytes(1000)
    assert refused(nested).code == "weights-damaged"
    assert time.perf_counter() - begin < 1


def test_a_large_vocabulary_is_quick() -> None:
    tokens, scores, kinds = spm_vocabulary(32_000)
    data = header(
        [
            key("general.architecture", STR, "llama"),
            key("tokenizer.ggml.model", STR, "llama"),
            key("tokenizer.ggml.add_bos_token", BOOL, True),
            array("tokenizer.ggml.tokens", STR, tokens),
            array("tokenizer.ggml.scores", F32, scores),
            array("tokenizer.ggml.token_type", I32, kinds),
        ],
        [],
    )
    best = float("inf")
    for _ in range(5):
        begin = time.process_time()  # other programs do not count
        assert read_header(data).vocab_size == 32_000
        best = min(best, time.process_time() - begin)
    assert best < 0.1


def test_the_starter_file_is_read(shared_dir: Path | None) -> None:
    if shared_dir is None:
        pytest.skip("no shared files here")
    found = read_header(shared_dir / "weights" / "stories260K.gguf")
    assert (found.architecture, found.vocab_size, found.kind) == ("llama", 512, "weights")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_change_of_bytes_escapes_as_another_error(data: st.DataObject) -> None:
    original = header(Shape().keys(), Shape().tensors())
    changed = bytearray(original + bytes(600_000))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(original) - 8))
        new = data.draw(st.binary(min_size=1, max_size=8))
        changed[at : at + len(new)] = new
    with contextlib.suppress(KnownError):
        read_header(bytes(changed))
