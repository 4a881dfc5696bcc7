"""A path as Markdown: word for word, and no message takes the next one with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from desktop_app.errors import KnownError
from desktop_app.exchange.markdown import Said, write


def test_a_path_is_written_word_for_word(tmp_path: Path) -> None:
    file = tmp_path / "chat.md"
    said = [
        Said("You", "  Two\n\n| a | b |\n"),
        Said("Tiny", "Three.\n", reasoning="First\n\nthen"),
    ]
    size_bytes = write(file, "A \n title", said)
    text = file.read_text(encoding="utf-8")
    assert size_bytes == len(text.encode())
    assert text == (
        "# A title\n\n## You\n\n  Two\n\n| a | b |\n\n## Tiny\n\n> First\n>\n> then\n\nThree.\n"
    )


@pytest.mark.parametrize(
    ("text", "closing"),
    [
        ("```python\nx = 1", "\n```"),
        ("~~~~\n```\nx", "\n~~~~"),
        ("````\n```\n", "\n````"),
        ("```\nx\n```", ""),
        ("a ``` b", ""),
        ("```not a fence``` here", ""),
        ("    ```\ncode by indent", ""),
    ],
)
def test_an_open_fence_is_closed(text: str, closing: str, tmp_path: Path) -> None:
    file = tmp_path / "chat.md"
    write(file, "T", [Said("You", text), Said("Tiny", "After")])
    expected = f"# T\n\n## You\n\n{text.strip(chr(10))}{closing}\n\n## Tiny\n\nAfter\n"
    assert file.read_text(encoding="utf-8") == expected


def test_empty_replies_keep_their_heading(tmp_path: Path) -> None:
    file = tmp_path / "chat.md"
    write(file, "T", [Said("Tiny", "")])
    assert file.read_text(encoding="utf-8") == "# T\n\n## Tiny\n"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KnownError, match="could not be written there"):
        write(tmp_path / "gone" / "chat.md", "T", [])
