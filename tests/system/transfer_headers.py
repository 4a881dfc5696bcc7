"""Proof: no header hangs the reader, and nothing that it accepts takes llama.cpp down.

``python -m tests.system.transfer_headers --count 10000 --seed 1 [--vocabularies DIR]``

Mutates the headers of several small weights files, reads them, and really loads, tokenises with
and decodes with every accepted one in a child process of its own.  Exit status 1 if a child dies,
if a read takes longer than two seconds, or if a file of --vocabularies is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from desktop_app.errors import KnownError
from desktop_app.weights.gguf import Header, read_header
from desktop_app.weights.gguf_parse import BytesSource, parse
from tests.fakes.hub_files import (
    ARR,
    BOOL,
    F32,
    I32,
    STR,
    U32,
    Shape,
    array,
    header,
    key,
    string,
    tensor_bytes,
    write,
)

SLOW_S = 2.0
CHILD_S = 20


def bases(folder: Path, extra: list[Path]) -> list[bytes]:
    """Small loadable files of several kinds."""
    found = []
    for number, kind in enumerate(["F32", "F16", "Q8_0", "Q4_0", "Q4_K"]):
        wide = 256 if kind == "Q4_K" else 64
        path = folder / f"base{number}.gguf"
        write(path, Shape(2, wide, wide * 2, 4, 2, 320, 512, kind, tied=kind == "Q8_0"))
        found.append(path.read_bytes())
    found.append(byte_level(folder / "bpe.gguf"))
    found += other_networks()
    found += [path.read_bytes() for path in extra if path.stat().st_size < 4 << 20]
    return found


def byte_level(path: Path) -> bytes:
    """A file with a byte-level BPE vocabulary and experts."""
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + i) for i in range(68)]
    tokens = [*letters, "he", "ll", "hell", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    shape = Shape(2, 64, 64, 4, 4, len(tokens), 512)
    keys = [k for k in shape.keys() if b"tokenizer." not in k]  # noqa: SIM118 - not a mapping
    keys += [
        key("llama.expert_count", U32, 4),
        key("llama.expert_used_count", U32, 2),
        key("tokenizer.ggml.model", STR, "gpt2"),
        key("tokenizer.ggml.pre", STR, "default"),
        array("tokenizer.ggml.tokens", STR, tokens),
        array("tokenizer.ggml.token_type", I32, [1] * (len(tokens) - 3) + [3] * 3),
        array("tokenizer.ggml.merges", STR, ["h e", "l l", "he ll"]),
        key("tokenizer.ggml.bos_token_id", U32, len(tokens) - 1),
        key("tokenizer.ggml.eos_token_id", U32, len(tokens) - 1),
        key("tokenizer.ggml.add_bos_token", BOOL, False),
    ]
    tensors: list[tuple[str, tuple[int, ...], str]] = []
    for name, extents, kind in shape.tensors():
        if "ffn_gate." in name:
            block = name.split(".")[1]
            tensors.append((f"blk.{block}.ffn_gate_inp.weight", (64, 4), "F32"))
        if "ffn_" in name and "norm" not in name:
            name = name.replace(".weight", "_exps.weight")  # noqa: PLW2901 - the expert's name
            extents = (*extents, 4)  # noqa: PLW2901 - one matrix for each expert
        tensors.append((name, extents, kind))
    data = bytearray(header(keys, tensors))
    rng = random.Random(3)
    for _, extents, kind in tensors:
        count = tensor_bytes(extents, kind) // 4
        data += struct.pack(f"<{count}f", *(rng.gauss(0, 0.05) for _ in range(count)))
        data += bytes(-len(data) % 32)
    path.write_bytes(data)
    return bytes(data)


def other_networks() -> list[bytes]:
    """Networks of other architectures: the checks must not depend on one of them."""
    wide, wider, head = 64, 128, 16
    fused = ["attn_norm.weight", "attn_norm.bias", "attn_output.weight", "attn_qkv.weight",
             "ffn_up.weight", "ffn_down.weight"]  # fmt: skip
    biased = ["attn_output.bias", "attn_qkv.bias", "ffn_norm.weight", "ffn_norm.bias",
              "ffn_up.bias", "ffn_down.bias"]  # fmt: skip
    apart = ["attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight",
             "attn_output.weight", "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight",
             "ffn_down.weight"]  # fmt: skip
    blocks = {
        "gptneox": fused + biased,
        "gpt2": fused + biased,
        "falcon": fused,
        "qwen2": [*apart, "attn_q.bias", "attn_k.bias", "attn_v.bias"],
        "gemma": apart,
        "phi3": ["attn_norm.weight", "attn_qkv.weight", "attn_output.weight", "ffn_norm.weight",
                 "ffn_up.weight", "ffn_down.weight"],
    }  # fmt: skip
    found = []
    for name, parts in blocks.items():
        kv = wide if name in ("gptneox", "gpt2", "gemma", "phi3") else wide // 2
        up = wider * 2 if name == "phi3" else wider
        sizes = {
            "attn_qkv": wide + 2 * kv, "attn_q": wide, "attn_k": kv, "attn_v": kv,
            "attn_output": wide, "ffn_up": up, "ffn_gate": wider, "ffn_down": wide,
            "attn_norm": wide, "ffn_norm": wide,
        }  # fmt: skip
        tensors: list[tuple[str, tuple[int, ...], str]] = [
            ("token_embd.weight", (wide, 320), "F32")
        ]
        if name == "gpt2":
            tensors.append(("position_embd.weight", (wide, 512), "F32"))
        for block in range(2):
            for part in parts:
                stem, _, end = part.partition(".")
                rows = wider if stem == "ffn_down" else wide
                flat = end == "bias" or stem.endswith("norm")
                shape = (sizes[stem],) if flat else (rows, sizes[stem])
                tensors.append((f"blk.{block}.{part}", shape, "F32"))
        tensors.append(("output_norm.weight", (wide,), "F32"))
        if name in ("gptneox", "gpt2", "falcon"):
            tensors.append(("output_norm.bias", (wide,), "F32"))
        if name != "gemma":
            tensors.append(("output.weight", (wide, 320), "F32"))
        keys = [k for k in Shape().keys() if b"tokenizer." in k]  # noqa: SIM118 - not a mapping
        keys += [
            key("general.architecture", STR, name),
            key(f"{name}.context_length", U32, 512),
            key(f"{name}.embedding_length", U32, wide),
            key(f"{name}.block_count", U32, 2),
            key(f"{name}.feed_forward_length", U32, wider),
            key(f"{name}.attention.head_count", U32, wide // head),
            key(f"{name}.attention.head_count_kv", U32, kv // head),
            key(f"{name}.attention.layer_norm_epsilon", F32, 1e-5),
            key(f"{name}.attention.layer_norm_rms_epsilon", F32, 1e-5),
            key(f"{name}.rope.dimension_count", U32, head),
            key(f"{name}.use_parallel_residual", BOOL, True),
        ]
        data = bytearray(header(keys, tensors))
        for _, extents, kind in tensors:
            data += struct.pack("<f", 0.02) * (tensor_bytes(extents, kind) // 4)
            data += bytes(-len(data) % 32)
        found.append(bytes(data))
    return found


EDGES = [
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    32,
    127,
    255,
    256,
    511,
    512,
    513,
    1023,
    1025,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
]


def mutate(data: bytes, header_bytes: int, rng: random.Random) -> bytes:
    """One to four changes in the header."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        rng.choice(MUTATIONS)(changed, header_bytes, rng)
    return bytes(changed)


def _bit(data: bytearray, end: int, rng: random.Random) -> None:
    at = rng.randrange(min(end, len(data)))
    data[at] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, end: int, rng: random.Random) -> None:
    data[rng.randrange(min(end, len(data)))] = rng.choice([0, 1, 255, 127, 128, rng.randrange(256)])


def _number(data: bytearray, end: int, rng: random.Random) -> None:
    at = rng.randrange(max(1, min(end, len(data)) - 8))
    if rng.random() < 0.5:
        data[at : at + 4] = struct.pack("<I", rng.choice(EDGES))
    else:
        value = rng.choice([*EDGES, 2**63 - 1, 2**63, 2**64 - 1, 2**40])
        data[at : at + 8] = struct.pack("<Q", value)


def _cut(data: bytearray, end: int, rng: random.Random) -> None:
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    else:
        at = rng.randrange(min(end, len(data)))
        del data[at : at + rng.randrange(1, 40)]
    if len(data) < 8:
        data.extend(bytes(8))


def _copy(data: bytearray, end: int, rng: random.Random) -> None:
    limit = min(end, len(data))
    length = rng.randrange(1, 24)
    source, target = rng.randrange(limit), rng.randrange(limit)
    data[target : target + length] = data[source : source + length]


def _value(data: bytearray, end: int, rng: random.Random) -> None:
    """Another number for a key that the engine uses."""
    names = [
        b"context_length",
        b"embedding_length",
        b"block_count",
        b"feed_forward_length",
        b"head_count",
        b"head_count_kv",
        b"dimension_count",
        b"epsilon",
        b"bos_token_id",
        b"eos_token_id",
        b"expert_count",
        b"expert_used_count",
        b"file_type",
    ]
    name = rng.choice(names)
    at = data.find(name, 0, end)
    if at < 0:
        return
    at += len(name) + 4
    if name == b"epsilon":
        data[at : at + 4] = struct.pack("<f", rng.choice([-1.0, 0.0, 1e30, float("nan"), 1e-9]))
    else:
        small = rng.choice([0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 64, 100, 128])
        data[at : at + 4] = struct.pack("<I", rng.choice([small, rng.choice(EDGES)]))


def _kind(data: bytearray, end: int, rng: random.Random) -> None:
    """Another type for a tensor."""
    at = data.find(b".weight", rng.randrange(min(end, len(data))), end)
    if at < 0:
        return
    at += 7
    dimensions = int.from_bytes(data[at : at + 4], "little")
    if dimensions > 4:
        return
    at += 4 + 8 * dimensions
    data[at : at + 4] = struct.pack("<I", rng.randrange(44))


def _token(data: bytearray, end: int, rng: random.Random) -> None:
    """A token's text: twice the same, a NUL inside, nothing but a space."""
    at = data.find(b"tokenizer.ggml.tokens", 0, end)
    if at < 0:
        return
    at += 21 + 16
    places: list[tuple[int, int]] = []
    while len(places) < 300 and at + 8 < end:
        length = int.from_bytes(data[at : at + 8], "little")
        if not 0 < length < 100:
            break
        places.append((at + 8, length))
        at += 8 + length
    if len(places) < 2:
        return
    (a, size), (b, other) = rng.sample(places, 2)
    choice = rng.randrange(3)
    if choice == 0 and size == other:
        data[a : a + size] = data[b : b + other]
    elif choice == 1:
        data[a + rng.randrange(size)] = 0
    else:
        data[a : a + size] = rng.randbytes(size)


def _insert(data: bytearray, end: int, rng: random.Random) -> None:
    """One more key, of those that llama.cpp looks at."""
    at = data.find(b"general.architecture", 0, end) + 24
    length = int.from_bytes(data[at : at + 8], "little")
    of = data[at + 8 : at + 8 + min(length, 12)].decode("ascii", "replace") or "llama"
    extra: list[Callable[[], bytes]] = [
        lambda: key(f"{of}.rope.scaling.type", STR, rng.choice(["linear", "yarn", "none", "x"])),
        lambda: key(f"{of}.rope.scaling.factor", F32, rng.choice([0.0, 2.0, -1.0, 1e30])),
        lambda: key(f"{of}.pooling_type", U32, rng.randrange(6)),
        lambda: key(f"{of}.attention.causal", BOOL, False),
        lambda: key(f"{of}.nextn_predict_layers", U32, rng.randrange(4)),
        lambda: key(f"{of}.expert_group_count", U32, rng.randrange(5)),
        lambda: key(f"{of}.attention.key_length", U32, rng.choice([0, 1, 8, 16, 64, 1000])),
        lambda: key(f"{of}.attention.value_length", U32, rng.choice([0, 1, 8, 16, 64])),
        lambda: key(f"{of}.attention.max_alibi_bias", F32, rng.choice([8.0, -1.0])),
        lambda: key(f"{of}.attention.clamp_kqv", F32, rng.choice([1.0, -1.0])),
        lambda: key(f"{of}.attention.scale", F32, rng.choice([0.0, -1.0, 5.0])),
        lambda: key(f"{of}.attention.sliding_window", U32, rng.choice([0, 1, 4096])),
        lambda: key(f"{of}.embedding_scale", F32, rng.choice([0.0, 12.0])),
        lambda: key(f"{of}.logit_scale", F32, rng.choice([0.0, 0.1])),
        lambda: key(f"{of}.vocab_size", U32, rng.choice([0, 1, 320, 10**9])),
        lambda: key("tokenizer.ggml.pre", STR, rng.choice(["llama3", "qwen2", "x", ""])),
        lambda: key("tokenizer.ggml.add_bos_token", BOOL, rng.random() < 0.5),
        lambda: key("tokenizer.ggml.add_eos_token", BOOL, rng.random() < 0.5),
        lambda: key("tokenizer.ggml.add_space_prefix", BOOL, rng.random() < 0.5),
        lambda: key("tokenizer.ggml.padding_token_id", U32, rng.choice([0, 5, 10**6])),
        lambda: key("tokenizer.ggml.eot_token_id", U32, rng.choice([0, 5, 10**6])),
        lambda: array(f"{of}.attention.head_count_kv", U32, [rng.randrange(5) for _ in range(2)]),
        lambda: array("tokenizer.ggml.suppress_tokens", I32, [rng.choice([1, -5, 10**6])]),
        lambda: array(f"{of}.rope.dimension_sections", I32, [rng.randrange(9) for _ in range(4)]),
        lambda: key("general.alignment", U32, rng.choice([1, 8, 16, 32, 64, 4096])),
        lambda: key(f"{of}.rope.freq_base", F32, rng.choice([0.0, -5.0, 1e30])),
        lambda: key("split.count", 2, rng.choice([0, 1, 2])),
        lambda: string("empty.list") + struct.pack("<IIQ", ARR, U32, 0),
    ]
    added = rng.choice(extra)()
    if data[:4] != b"GGUF" or len(data) < 32:
        return
    count = int.from_bytes(data[16:24], "little")
    data[16:24] = struct.pack("<Q", (count + 1) % 2**64)
    # The header grows by whole alignments, so that the tensors behind it stay where they belong.
    data[24:24] = added
    filler = -len(added) % 32
    while 0 < filler < 20:
        filler += 32
    if filler:
        data[16:24] = struct.pack("<Q", (count + 2) % 2**64)
        name = "x" * (filler - 13)
        data[24:24] = string(name)[:] + struct.pack("<I?", BOOL, True)


MUTATIONS: list[Callable[[bytearray, int, random.Random], None]] = [
    _bit,
    _bit,
    _bit,
    _byte,
    _number,
    _cut,
    _copy,
    _value,
    _value,
    _kind,
    _token,
    _insert,
    _insert,
]


def use(path: str, has_byte_tokens: bool, *, vocabulary_only: bool = False) -> bool:
    """Load, tokenise, decode and spell with llama.cpp.  Runs in a child that may die.

    False when llama.cpp refused the file with a message, which is fine.
    """
    import llama_cpp as llama

    loading = llama.llama_model_default_params()
    loading.vocab_only = vocabulary_only
    weights = llama.llama_model_load_from_file(path.encode(), loading)
    if not weights:
        return False
    vocab = llama.llama_model_get_vocab(weights)
    context = None
    if not vocabulary_only:
        options = llama.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = 64, 32, 32
        options.n_threads = options.n_threads_batch = 1
        # As Grove's engine makes its contexts.
        options.n_seq_max = options.n_outputs_max = 16
        options.kv_unified = options.swa_full = True
        context = llama.llama_init_from_model(weights, options)
        if not context:
            llama.llama_model_free(weights)
            return False
    text = "hello 안녕 😀\n".encode() if has_byte_tokens else b"hello"
    tokens = (llama.llama_token * 64)()
    count = llama.llama_tokenize(vocab, text, len(text), tokens, 64, True, True)
    if 0 < count <= 30 and context is not None:
        llama.llama_decode(context, llama.llama_batch_get_one(tokens, count))
        logits = llama.llama_get_logits_ith(context, -1)
        if logits:
            _ = logits[0]
    buffer = ctypes.create_string_buffer(4096)
    for token in range(min(llama.llama_vocab_n_tokens(vocab), 400)):
        llama.llama_token_to_piece(vocab, token, buffer, 4096, 0, True)
    if context is not None:
        llama.llama_free(context)
    llama.llama_model_free(weights)
    return True


REFUSED = 4


def survives(path: Path, accepted: Header) -> str:
    """Use the file in a child: "used", "refused", or how the child died."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 2)
            signal.alarm(CHILD_S)
            alone = accepted.kind == "vocabulary"
            works = use(str(path), accepted.has_byte_tokens, vocabulary_only=alone)
            os._exit(0 if works else REFUSED)
        os._exit(3)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    code = os.WEXITSTATUS(status)
    return {0: "used", REFUSED: "refused"}.get(code, f"exit {code}")


def quiet_engine() -> bool:
    """Import llama.cpp once, silently, before forking.  False when it is not installed."""
    try:
        import llama_cpp as llama
    except ImportError:
        return False
    os.environ["GGML_NO_BACKTRACE"] = "1"  # else each abort waits for a debugger
    callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    silent = callback(lambda *_: None)
    llama.llama_log_set(silent, None)
    globals()["_silent"] = silent  # llama.cpp keeps the pointer
    llama.llama_backend_init()
    return True


def run(count: int, seed: int, extra: list[Path], keep: Path | None) -> dict[str, object]:
    rng = random.Random(seed)
    engine = quiet_engine()
    refused: Counter[str] = Counter()
    deaths: list[str] = []
    loaded = used = 0
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        originals = bases(Path(folder), extra)
        ends = [parse(BytesSource(data)).data_offset for data in originals]
        path = Path(folder) / "mutated.gguf"
        for data in originals:
            path.write_bytes(data)
            # Without a change everything works, or this proof would prove nothing.
            assert not engine or survives(path, read_header(data)) == "used"
        for number in range(count):
            which = rng.randrange(len(originals))
            data = mutate(originals[which], ends[which], rng)
            begin = time.perf_counter()
            try:
                accepted = read_header(data)
            except KnownError as error:
                refused[error.code] += 1
                continue
            finally:
                slowest = max(slowest, time.perf_counter() - begin)
            if not engine or accepted.kind not in ("weights", "vocabulary"):
                refused[f"not loaded: {accepted.kind}"] += 1
                continue
            path.write_bytes(data)
            loaded += 1
            end = survives(path, accepted)
            used += end == "used"
            if end not in ("used", "refused"):
                deaths.append(f"{seed}/{number} base {which}: {end}")
                if keep is not None:
                    (keep / f"killer-{seed}-{number}.gguf").write_bytes(data)
    return {
        "count": count,
        "seed": seed,
        "loaded": loaded,
        "decoded": used,
        "engine": engine,
        "slowest_ms": round(slowest * 1000, 1),
        "deaths": deaths,
        "refused": dict(refused.most_common()),
    }


def check_vocabularies(folder: Path) -> list[str]:
    """Names of files that are refused; times of all are printed."""
    wrong = []
    for path in sorted(folder.glob("*.gguf")):
        begin = time.perf_counter()
        try:
            found = read_header(path)
        except KnownError as error:
            wrong.append(f"{path.name}: {error.detail}")
            continue
        took = (time.perf_counter() - begin) * 1000
        print(f"{path.name}: {found.vocab_size} tokens in {took:.0f} ms", file=sys.stderr)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hub", default="", help="not needed here; every proof takes it")
    parser.add_argument("--extra", type=Path, action="append", default=[], help="more base files")
    parser.add_argument("--vocabularies", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for files that took the engine down")
    args = parser.parse_args()
    wrong = check_vocabularies(args.vocabularies) if args.vocabularies else []
    result = run(args.count, args.seed, args.extra, args.keep)
    result["vocabularies_refused"] = wrong
    print(json.dumps(result, indent=1))
    slow = float(str(result["slowest_ms"])) > SLOW_S * 1000
    return 1 if result["deaths"] or wrong or slow else 0


if __name__ == "__main__":
    sys.exit(main())
