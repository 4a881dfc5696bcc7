"""What the arguments ask for, before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from desktop_app import cli
from desktop_app.cli.ask import template_of
from desktop_app.errors import KnownError
from desktop_app.paths import Profile


@pytest.mark.parametrize(
    ("argv", "window"),
    [
        ([], True),
        (["--profile", "x"], True),
        (["--profile=x"], True),
        (["chat"], False),
        (["--profile", "x", "ask", "Hello"], False),
        (["--help"], False),
        (["--version"], False),
    ],
)
def test_the_window_opens_when_no_command_is_named(argv: list[str], window: bool) -> None:
    assert cli.names_no_command(argv) is window


def test_the_window_gets_the_profile(tmp_path: Path) -> None:
    seen: list[Profile] = []

    def window(profile: Profile) -> int:
        seen.append(profile)
        return 3

    assert cli.with_profile(["--profile", str(tmp_path / "p")], window) == 3
    assert seen == [Profile(tmp_path / "p")]
    assert seen[0].weights.is_dir()


def test_a_known_error_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("x")

    assert cli.with_profile(["--profile", str(blocked / "p")], lambda _: 0) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "--profile" in said.err


def test_every_command_has_help() -> None:
    parser = cli.build_parser()
    text = parser.format_help()
    names = (
        "ask chat render engine export import backup restore doctor selftest search chats weights "
        "bench"
    )
    for name in names.split():
        assert name in text


def test_templates_by_name_or_file(tmp_path: Path) -> None:
    assert template_of(None) is None
    assert template_of("chatml") == "chatml"
    file = tmp_path / "own"
    file.write_text("{{ messages }}")
    assert template_of(str(file)) == "{{ messages }}"
    with pytest.raises(KnownError):
        template_of(str(tmp_path / "none.jinja"))
