"""Bad days at the command line: one sentence that says what to do, and nothing lost."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes import tiny_gguf
from tests.system.grove import ROOT, Grove, Ran, environment


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("weights") / "tiny.gguf")


@pytest.fixture
def grove(tmp_path: Path) -> Grove:
    return Grove(tmp_path / "profile")


def ask(grove: Grove, weights: Path, prompt: str = "Hello", *more: object) -> Ran:
    return grove("ask", "--json", "--weights", weights, "--max-tokens", 4, *more, prompt)


def refused(said: Ran, *codes: str) -> str:
    """The one sentence of an error with one of these codes."""
    assert said.status == 1, said.out
    error = said.json["error"]
    assert error["code"] in codes, error
    assert said.err == error["sentence"] + "\n"
    assert error["sentence"][-1] in ".!"
    assert "Traceback" not in said.err
    return str(error["sentence"])


def test_no_file(grove: Grove, tmp_path: Path) -> None:
    refused(ask(grove, tmp_path / "nothing.gguf", "Hello", "--system", "S"), "weights-missing")
    assert grove("chats", "--json").ok().json == []
    refused(ask(grove, tmp_path), "weights-missing", "weights-unreadable", "weights-not-gguf")


def test_no_weights_at_all(grove: Grove) -> None:
    said = grove("ask", "--json", "Hello")
    if said.status == 0:
        pytest.skip("weights came with this checkout")
    refused(said, "no-weights")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "weights-truncated weights-not-gguf"),
        (b"<!DOCTYPE html><html>404</html>", "weights-not-gguf"),
        (b"GGUF", "weights-truncated"),
        (b"GGUF" + struct.pack("<III", 1, 0, 0), "weights-version-1"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "weights-version"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "weights-big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63), "weights-damaged weights-truncated"),
        (b"ggjt" + bytes(100), "weights-not-gguf"),
    ],
)
def test_files_that_are_no_weights(grove: Grove, tmp_path: Path, content: bytes, code: str) -> None:
    file = tmp_path / "file.gguf"
    file.write_bytes(content)
    refused(ask(grove, file), *code.split())


def test_truncated_weights(grove: Grove, weights: Path, tmp_path: Path) -> None:
    whole = weights.read_bytes()
    file = tmp_path / "cut.gguf"
    for share in (0.05, 0.5, 0.99):
        file.write_bytes(whole[: int(len(whole) * share)])
        refused(ask(grove, file), "weights-truncated", "weights-damaged")


def test_damaged_vocabulary(grove: Grove, weights: Path, tmp_path: Path) -> None:
    # Two equal entries make llama.cpp abort; the header check sees them first.
    whole = weights.read_bytes()
    old = struct.pack("<Q", 5) + "▁ba".encode()
    assert whole.count(old) == 1
    file = tmp_path / "twice.gguf"
    file.write_bytes(whole.replace(old, struct.pack("<Q", 5) + "▁be".encode()))
    refused(ask(grove, file), "weights-damaged", "weights-crashed")


def test_a_part_is_missing(grove: Grove, tmp_path: Path) -> None:
    import gguf

    file = tmp_path / "parts-00001-of-00003.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_uint16("split.no", 0)
    writer.add_uint16("split.count", 3)
    writer.add_int32("split.tensors.count", 0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    refused(ask(grove, file), "weights-shard-missing", "weights-damaged")
    # The second part leads to the first, which is not there.
    refused(ask(grove, tmp_path / "other-00002-of-00003.gguf"), "weights-missing")


def _seventy_billion(file: Path) -> int:
    """Weights of 70 billion numbers of 4 bytes, all holes: the file takes no room on the disk.

    Returns what its tensors would take in memory, in bytes.
    """
    import gguf
    import numpy as np

    width, feed, kv, blocks = 8192, 28672, 1024, 80
    tokens, kinds = tiny_gguf.vocabulary()
    writer = gguf.GGUFWriter(file, "llama")
    for key, value in {
        "block_count": blocks,
        "context_length": 4096,
        "embedding_length": width,
        "feed_forward_length": feed,
        "attention.head_count": 64,
        "attention.head_count_kv": 8,
        "rope.dimension_count": 128,
    }.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    shapes = {"token_embd": (len(tokens), width), "output_norm": (width,)}
    for n in range(blocks):
        shapes |= {
            f"blk.{n}.{name}": shape
            for name, shape in {
                "attn_norm": (width,),
                "attn_q": (width, width),
                "attn_k": (kv, width),
                "attn_v": (kv, width),
                "attn_output": (width, width),
                "ffn_norm": (width,),
                "ffn_gate": (feed, width),
                "ffn_up": (feed, width),
                "ffn_down": (width, feed),
            }.items()
        }
    total_bytes = 0
    for name, shape in shapes.items():
        size_bytes = int(np.prod(shape)) * 4
        total_bytes += size_bytes
        writer.add_tensor_info(f"{name}.weight", shape, np.dtype(np.float32), size_bytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with file.open("r+b") as sparse:
        sparse.truncate(file.stat().st_size + 4096 + total_bytes)
    return total_bytes


def test_too_big_for_the_memory(grove: Grove, tmp_path: Path) -> None:
    file = tmp_path / "huge.gguf"
    try:
        needed_bytes = _seventy_billion(file)
    except OSError:
        pytest.skip("no sparse files of this size here")
    if needed_bytes < psutil.virtual_memory().total:
        pytest.skip("this computer really can load them")
    sentence = refused(ask(grove, file), "weights-too-big")
    assert "Too big for this computer" in sentence


def test_weights_that_cannot_chat(grove: Grove, tmp_path: Path) -> None:
    file = tiny_gguf.write(tmp_path / "embedder.gguf", "embedder")
    refused(ask(grove, file), "weights-no-chat", "weights-other")


def test_a_character_that_aborts_llama(grove: Grove, tmp_path: Path) -> None:
    """An emoji sent to a vocabulary without byte tokens; the next question is answered."""
    file = tiny_gguf.write(tmp_path / "no-bytes.gguf", "no-bytes")
    said = ask(grove, file, "Hello 🌲", "--template", "plain")
    refused(said, "text-unspellable", "engine-crashed")
    assert ask(grove, file, "Hello", "--template", "plain").status == 0


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 300000000 }}{{ 'y' * 3000000000 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for m in messages %}",
        "{{ raise_exception('no') }}",
        "{{ nothing.at.all }}",
    ],
)
def test_hostile_templates(grove: Grove, weights: Path, tmp_path: Path, template: str) -> None:
    file = tmp_path / "hostile.jinja"
    file.write_text(template)
    said = ask(grove, weights, "Hello", "--template", file)
    assert said.status == 1
    assert said.json["error"]["code"].startswith("template-"), said.json
    assert said.err.count("\n") == 1
    # The question is kept, with a reply that failed; the same chat goes on with another template.
    again = ask(grove, weights, "Hello", "--chat", 1)
    assert again.status == 0


def test_a_second_grove_on_the_same_profile(grove: Grove, weights: Path) -> None:
    ask(grove, weights).ok()
    with subprocess.Popen(
        grove.command("chat", "--weights", weights), cwd=ROOT, env=environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        assert first.stdout is not None
        assert "Grove with" in first.stdout.readline()
        sentence = refused(ask(grove, weights), "profile-busy")
        assert "already" in sentence or "another" in sentence.lower()
        # Looking is allowed beside it.
        assert len(grove("chats", "--json").ok().json) == 1
        assert grove("search", "--json", "Hello").ok().json
        assert grove("doctor", "--json").ok().json["counts"]["chats"] == 1
        assert grove("export", "--all", "--json", "-o", grove.profile / "x.json").ok().json
        refused(grove("import", "--json", grove.profile / "x.json"), "profile-busy")
        first.communicate("/quit\n", timeout=30)
    assert ask(grove, weights).status == 0


def test_a_damaged_database(grove: Grove, weights: Path) -> None:
    ask(grove, weights, "Precious words")
    database = grove.profile / "library.db"
    assert database.exists()
    whole = database.read_bytes()
    for content in (b"no database at all" * 400, whole[:5000] + bytes(8192) + whole[13192:]):
        for extra in ("-wal", "-shm"):
            database.with_name(database.name + extra).unlink(missing_ok=True)
        database.write_bytes(content)
        said = grove("chats", "--json")
        assert "Traceback" not in said.err
        refused(said, "database-damaged")
        # Grove changes nothing by itself: the damaged bytes are still there.
        # (But for the counters in its first 100 bytes, where SQLite notes that it was opened.)
        assert database.read_bytes()[100:] == content[100:]


def test_a_backup_brings_a_damaged_library_back(grove: Grove, weights: Path) -> None:
    ask(grove, weights, "Precious words")
    backup = Path(grove("backup", "--json").ok().json["file"])
    assert backup.is_file()
    (grove.profile / "library.db").write_bytes(b"no database at all" * 400)
    doctor = grove("doctor", "--json")
    assert doctor.status == 1
    assert "damaged" in doctor.json["database"]["check"]
    kept = Path(grove("restore", "--json").ok().json["kept"])
    assert kept.read_bytes() == b"no database at all" * 400
    assert [chat["title"] for chat in grove("chats", "--json").ok().json] == ["Precious words"]
    refused(grove("restore", "--json", grove.profile / "none.db"), "file-missing")
    refused(Grove(grove.profile / "new")("restore", "--json"), "backup-missing")


def test_a_database_of_a_newer_grove(grove: Grove, weights: Path) -> None:
    import apsw

    ask(grove, weights)
    connection = apsw.Connection(str(grove.profile / "library.db"))
    connection.pragma("user_version", 99)
    connection.close()
    refused(grove("chats", "--json"), "database-newer")


def _small_disk(folder: Path, size_kb: int) -> list[str] | None:
    """A command prefix that runs in a mount space with a small disk at `folder`; None = cannot."""
    if shutil.which("unshare") is None:
        return None
    mount = f"mount -t tmpfs -o size={size_kb}k none '{folder}' && exec \"$@\""
    prefix = ["unshare", "-rm", "sh", "-c", mount, "sh"]
    try:
        done = subprocess.run([*prefix, "true"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return prefix if done.returncode == 0 else None


def test_a_full_disk(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    prefix = _small_disk(folder, 400)
    if prefix is None:
        pytest.skip("no small disk can be made here")
    grove = Grove(folder / "profile")
    # Everything in one mount space, which ends with its shell.
    one = grove.command("ask", "--json", "--weights", weights, "--max-tokens", 4, "Hello")
    script = (
        f"head -c 100000 /dev/zero > '{folder}/ballast'; "
        + " ".join(f"'{word}'" for word in one)
        + f" > '{tmp_path}/out1' 2> '{tmp_path}/err1'; echo $? > '{tmp_path}/status1'; "
        + f"head -c 1000000 /dev/zero > '{folder}/ballast2' 2>/dev/null; "
        + " ".join(f"'{word}'" for word in one)
        + f" > '{tmp_path}/out2' 2> '{tmp_path}/err2'; echo $? > '{tmp_path}/status2'; "
        + f"rm '{folder}'/ballast*; "
        + " ".join(f"'{word}'" for word in grove.command("doctor", "--json"))
        + f" > '{tmp_path}/out3' 2> '{tmp_path}/err3'; echo $? > '{tmp_path}/status3'"
    )
    subprocess.run([*prefix, "sh", "-c", script], cwd=ROOT, env=environment(), check=True)

    def said(n: int) -> Ran:
        texts = [(tmp_path / f"{name}{n}").read_text() for name in ("out", "err")]
        return Ran(int((tmp_path / f"status{n}").read_text()), *texts)

    for n in (1, 2):
        ran = said(n)
        assert "Traceback" not in ran.err
        if ran.status:
            refused(ran, "disk-full", "profile-unwritable", "settings-unwritable")
    assert said(2).status == 1
    doctor = said(3)
    assert doctor.json["database"]["check"] == "ok", doctor.err


def test_files_that_cannot_be_imported(grove: Grove, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    cases: list[tuple[bytes, str]] = [
        (b"", "import-empty"),
        (b"\xff\xfe\x00broken", "import-format"),
        (b'{"format": "grove", "version": 1, "chats": [{"messa', "import-format"),
        (b'{"format": "grove", "version": 99, "chats": []}', "import-newer"),
        (b'{"format": "grove", "version": 1, "chats": [3]}', "import-damaged"),
        (b'{"hello": "world"}', "import-unknown"),
        (b"[1, 2]", "import-unknown"),
        (b'{"message_id": "a", "text": "x", "role": "prompter"}\n{"broken', "import-format"),
        (b'{"message_tree_id": "t", "prompt": {"role": 3}}', "import-format"),
        (b"[" * 100_000, "import-format"),
        (b"\x1f\x8bnot gzip", "file-unreadable"),
    ]
    for content, code in cases:
        file.write_bytes(content)
        refused(grove("import", "--json", file), code)
    refused(grove("import", "--json", tmp_path / "missing.json"), "file-missing")
    refused(grove("import", "--json", tmp_path), "file-missing")
    assert grove("chats", "--json").ok().json == []


def test_an_export_that_cannot_be_written(grove: Grove, tmp_path: Path) -> None:
    refused(
        grove("export", "--all", "--json", "-o", tmp_path / "no" / "folder.json"),
        "file-unwritable",
    )
    refused(grove("export", "--chat", 7, "--json", "-o", tmp_path / "x.json"), "chat-missing")


def test_damaged_settings(grove: Grove, weights: Path) -> None:
    ask(grove, weights)
    settings = grove.profile / "settings.json"
    settings.write_text('{"theme": ')
    said = ask(grove, weights).ok()
    assert "settings file was damaged" in said.err
    assert (grove.profile / "settings.damaged-1.json").read_text() == '{"theme": '
    values: dict[str, Any] = {"theme": "purple", "from_the_future": [1]}
    settings.write_text(json.dumps(values))
    assert ask(grove, weights).status == 0
    kept = json.loads(settings.read_text())
    assert kept["from_the_future"] == [1]
    assert kept["weights_path"] == str(weights)
