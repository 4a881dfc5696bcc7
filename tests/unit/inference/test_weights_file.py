"""What is said about a file before llama.cpp sees it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.weights_file import check, fingerprint, shards

HEAD = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "weights-no-gguf"),
        (b"PK\x03\x04 a zip file", "weights-no-gguf"),
        (b"GGUF\x03", "weights-truncated"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "weights-version"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "weights-byte-order"),
    ],
)
def test_each_unfit_beginning_has_its_sentence(tmp_path: Path, content: bytes, code: str) -> None:
    file = tmp_path / "weights.gguf"
    file.write_bytes(content)
    with pytest.raises(KnownError) as caught:
        check(file)
    assert caught.value.code == code
    assert "weights.gguf" in caught.value.sentence


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.gguf", tmp_path):
        with pytest.raises(KnownError) as caught:
            check(path)
        assert caught.value.code == "weights-missing"


def test_any_part_of_a_set_stands_for_the_whole_set(tmp_path: Path) -> None:
    parts = [tmp_path / f"w-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]
    for part in parts:
        part.write_bytes(HEAD)
    assert check(parts[1]) == tuple(parts)
    parts[2].unlink()
    with pytest.raises(KnownError) as caught:
        shards(parts[0])
    assert caught.value.code == "weights-part-missing"
    assert parts[2].name in caught.value.sentence


def test_the_fingerprint_tells_files_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "1.gguf", tmp_path / "2.gguf"
    body = bytearray(HEAD + bytes(3 << 20))
    one.write_bytes(body)
    two.write_bytes(body)
    assert fingerprint((one,)) == fingerprint((two,))
    body[-1] = 1
    two.write_bytes(body)
    assert fingerprint((one,)) != fingerprint((two,))
    assert fingerprint((one,)) != fingerprint((one, two))
