"""The command line as users and scripts meet it, with real weights (tiny, random) in real
processes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import tiny_gguf
from tests.system.grove import ROOT, Grove, environment


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("weights") / "tiny.gguf")


@pytest.fixture
def grove(tmp_path: Path) -> Grove:
    return Grove(tmp_path / "profile")


def ask(grove: Grove, weights: Path, prompt: str, *more: object, seed: int = 1) -> Any:
    return grove(
        "ask", "--json", "--weights", weights, "--seed", seed, "--threads", 1,
        "--max-tokens", 24, *more, prompt,
    ).ok().json  # fmt: skip


def test_ask_tells_what_it_did(grove: Grove, weights: Path) -> None:
    said = ask(grove, weights, "Hello there", "--system", "Be brief.")
    assert set(said) == {"chat", "replies", "timings"}
    [reply] = said["replies"]
    assert set(reply) == {"message", "text", "finish", "tokens"}
    assert reply["finish"] in ("stop", "length")
    assert 0 < reply["tokens"] <= 24
    assert "\ufffd" not in reply["text"]
    timings = said["timings"]
    assert set(timings) == {
        "load_s", "prompt_tokens", "evaluated_tokens", "first_token_s", "tokens_per_s",
    }  # fmt: skip
    assert timings["prompt_tokens"] == timings["evaluated_tokens"] > 0

    export = grove.profile / "all.json"
    grove("export", "--all", "--json", "-o", export).ok()
    [chat] = json.loads(export.read_text(encoding="utf-8"))["chats"]
    system, user, answer = chat["messages"]
    assert (system["role"], system["parts"][0]["text"]) == ("system", "Be brief.")
    assert (user["role"], user["parts"][0]["text"]) == ("user", "Hello there")
    assert (answer["role"], answer["parts"][0]["text"]) == ("assistant", reply["text"])
    [turn] = answer["turns"]
    assert turn["seed"] == 1
    assert turn["tokens_written"] == reply["tokens"]
    assert turn["ancestors"] == [[system["uid"], 0], [user["uid"], 0]]
    assert turn["weights_hash"]
    assert chat["chat"]["title"] == "Hello there"


def test_the_same_seed_writes_the_same(grove: Grove, weights: Path) -> None:
    texts = [
        ask(grove, weights, "Once upon a time", seed=seed)["replies"][0]["text"]
        for seed in (5, 5, 6)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_ask_goes_on_with_a_chat(grove: Grove, weights: Path) -> None:
    first = ask(grove, weights, "One")
    second = ask(grove, weights, "Two", "--chat", first["chat"])
    assert second["chat"] == first["chat"]
    assert second["timings"]["prompt_tokens"] > first["timings"]["prompt_tokens"]
    missing = grove("ask", "--json", "--chat", 999, "--weights", weights, "x")
    assert missing.status == 1
    assert missing.json["error"]["code"] == "chat-missing"


def test_drafts_stand_side_by_side(grove: Grove, weights: Path) -> None:
    said = ask(grove, weights, "Say", "--drafts", 3)
    assert len({reply["text"] for reply in said["replies"]}) == 3


def test_plain_output_is_the_reply_alone(grove: Grove, weights: Path) -> None:
    said = ask(grove, weights, "Hello", seed=3)["replies"][0]["text"]
    plain = grove(
        "ask", "--weights", weights, "--seed", 3, "--threads", 1, "--max-tokens", 24, "-",
        stdin="Hello",
    ).ok()  # fmt: skip
    assert plain.out == said + "\n"
    assert plain.err == ""


def test_a_wrong_command_line_is_2(grove: Grove, weights: Path) -> None:
    assert grove("ask", "--seed", "x", "y").status == 2
    assert grove("dance").status == 2
    assert grove("export", "--all").status == 2


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--preset", "nothing"), "preset-unknown"),
        (("--temperature", "-1"), "sampling-invalid"),
        (("--template", "missing.jinja"), "template-unreadable"),
        (("--threads", "-1"), "option-range"),
        (("--drafts", "99"), "drafts-range"),
        (("--max-tokens", "-1"), "sampling-invalid"),
    ],
)
def test_options_that_cannot_be(grove: Grove, weights: Path, args: Any, code: str) -> None:
    said = grove("ask", "--json", "--weights", weights, *args, "Hello")
    assert said.status == 1
    assert said.json["error"]["code"] == code
    assert said.json["error"]["sentence"] == said.err.strip()
    assert said.err.count("\n") == 1


def test_the_talk_in_a_terminal(grove: Grove, weights: Path) -> None:
    lines = [
        "Hello", "/again", "/versions 2", "/edit 1 Good day", "/versions", "/tree", "/undo",
        "/redo", "/versions 1 1", "/continue", "/system Be kind.", "/dance", "/edit 99 x", "/help",
        "//not a command", "/new", "/quit",
    ]  # fmt: skip
    said = grove(
        "chat", "--weights", weights, "--seed", 1, "--max-tokens", 8, stdin="\n".join(lines) + "\n"
    ).ok()
    assert "2 tiny" in said.out or "2 " in said.out
    assert "‹2/2›" in said.out
    assert "Undone: save-and-ask-again." in said.out
    assert "Done again: save-and-ask-again." in said.out
    assert "Be kind." in said.out
    assert "There is no command /dance" in said.err
    assert "A number from 1 to" in said.err
    export = grove.profile / "all.json"
    grove("export", "--all", "-o", export).ok()
    [chat] = json.loads(export.read_text(encoding="utf-8"))["chats"]
    texts = [m["parts"][0]["text"] for m in chat["messages"] if m["role"] == "user"]
    assert sorted(texts) == ["/not a command", "Good day", "Hello"]


def test_no_command_talks_where_there_is_no_display(grove: Grove, weights: Path) -> None:
    ask(grove, weights, "Remember these weights")
    said = grove(stdin="/help\n/quit\n").ok()
    assert "/versions" in said.out


def _interrupted(grove: Grove, weights: Path, seed: int) -> tuple[int, list[Any]]:
    """The exit status and events of an `ask` that got Ctrl-C in mid-reply."""
    running = subprocess.Popen(
        grove.command(
            "ask", "--events", "--weights", weights, "--max-tokens", 1500, "--threads", 1,
            "--seed", seed, "Go on",
        ),
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    events = []
    for line in running.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "text":
            break
    running.send_signal(signal.SIGINT)
    rest, _ = running.communicate(timeout=60)
    events += [json.loads(line) for line in rest.splitlines()]
    return running.returncode, events


def test_ctrl_c_stops_and_keeps_the_text(grove: Grove, weights: Path) -> None:
    slow = tiny_gguf.write(weights.parent / "slow.gguf", "slow")
    for seed in range(1, 9):
        status, events = _interrupted(grove, slow, seed)
        ended = next(event for event in events if event["event"] == "finished")
        if ended["finish"] == "cancelled":
            break  # other seeds make these weights end their reply before
    assert ended["finish"] == "cancelled"
    assert status == 130
    export = grove.profile / "all.json"
    grove("export", "--all", "-o", export).ok()
    chat = json.loads(export.read_text(encoding="utf-8"))["chats"][-1]
    assert chat["messages"][1]["state"] == "stopped"
    assert chat["messages"][1]["parts"][0]["text"] == ended["text"]


def test_render_shows_text_and_tokens(grove: Grove, weights: Path, tmp_path: Path) -> None:
    messages = tmp_path / "messages.json"
    messages.write_text(
        json.dumps([{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]),
        encoding="utf-8",
    )
    said = grove("render", "--weights", weights, "--messages", messages, "--json").ok().json
    assert set(said) == {"text", "tokens"}
    assert said["text"].endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert all(type(token) is int for token in said["tokens"])
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}")
    own = grove(
        "render", "--weights", weights, "--messages", messages, "--template", template, "--json"
    ).ok()
    assert own.json["text"].endswith("[system]S[user]Hi")
    messages.write_text('[{"role": "robot"}]')
    bad = grove("render", "--weights", weights, "--messages", messages, "--json")
    assert bad.json["error"]["code"] == "messages-format"


def test_the_engine_runs_a_script(grove: Grove, weights: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    messages = [{"role": "user", "text": "Hello"}]
    lines = [
        {"do": "load", "path": str(weights), "threads": 1},
        {"do": "generate", "messages": messages, "sampling": {"max_tokens": 6, "seed": 1}},
        {"do": "render", "messages": messages},
        {"do": "unload"},
    ]
    script.write_text("\n".join(map(json.dumps, lines)))
    said = grove("engine", "--script", script).ok()
    events = [json.loads(line) for line in said.out.splitlines()]
    times = [event["t"] for event in events]
    assert times == sorted(times)
    [finished] = [event for event in events if event["event"] == "finished"]
    assert finished["counters"]["generated_tokens"] <= 6
    assert [event["job"] for event in events if event["event"] == "rendered"] == ["line3"]
    script.write_text('{"do": "fly"}')
    assert grove("engine", "--script", script).status == 1
    script.write_text(json.dumps({"do": "load", "path": str(script)}))
    refused = grove("engine", "--script", script)
    assert refused.status == 1
    assert json.loads(refused.out)["code"] == "weights-not-gguf"


def test_doctor_selftest_search_and_chats(grove: Grove, weights: Path) -> None:
    ask(grove, weights, "The pelican flies over 서울특별시")
    found = grove("search", "--json", "elica").ok().json
    assert {hit["title"] for hit in found} == {"The pelican flies over 서울특별시"}
    assert any("pelican" in hit["snippet"] for hit in found)
    assert len(grove("search", "--json", "특별").ok().json) == len(found)
    assert "Nothing found" in grove("search", "xyzzy").ok().out
    assert len(grove("chats", "--json").ok().json) == 1

    doctor = grove("doctor", "--json").ok().json
    assert doctor["database"]["check"] == "ok"
    assert doctor["engine"]["build"]
    assert doctor["engine"]["devices"]
    assert doctor["counts"]["chats"] == 1
    assert str(grove.profile) in grove("doctor").ok().out

    tests = grove("selftest", "--weights", weights, "--json").ok().json
    assert tests["ok"] is True
    assert [test["ok"] for test in tests["tests"]] == [True, True, True]


def test_nobody_reads_on(grove: Grove, weights: Path) -> None:
    ask(grove, weights, "pelican")
    with subprocess.Popen(
        grove.command("chats"), cwd=ROOT, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == ""
    assert running.returncode == 0


def test_the_log_holds_nothing_that_was_written(grove: Grove, weights: Path) -> None:
    ask(grove, weights, "Xylophone secret")
    texts = [p.read_text(encoding="utf-8") for p in (grove.profile / "logs").iterdir()]
    assert texts
    assert not any("ylophone" in text for text in texts)


@pytest.mark.skipif(os.name != "posix", reason="terminals of this kind")
def test_ctrl_c_in_a_terminal_stops_the_reply_and_the_talk_goes_on(
    grove: Grove, weights: Path
) -> None:
    """A real terminal sends Ctrl-C to the whole group, the engine too."""
    import pty

    slow = tiny_gguf.write(weights.parent / "slow.gguf", "slow")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        command = grove.command("chat", "--weights", slow, "--max-tokens", 1500, "--threads", 1)
        os.execve(command[0], command, environment({"TERM": "dumb"}))
    said = ""

    def until(*wanted: str) -> str:
        """Read until one of these came, and say which."""
        nonlocal said
        deadline = time.monotonic() + 60
        while not (found := [text for text in wanted if text in said]):
            assert time.monotonic() < deadline, f"{wanted} never came: {said!r}"
            if select.select([terminal], [], [], 1.0)[0]:
                said += os.read(terminal, 65536).decode(errors="replace")
        said = said.partition(found[0])[2]
        return found[0]

    try:
        until("> ")
        os.write(terminal, b"Go on\n")
        for _ in range(20):
            until("\n")  # what was typed
            until("\n")  # who writes
            os.write(terminal, b"\x03")
            # These weights end some replies very early; then Ctrl-C comes at the prompt.
            if until("(stopped)", "/quit leaves.") == "(stopped)":
                break
            until("> ")
            os.write(terminal, b"/again\n")
        else:
            pytest.fail("no reply was stopped in 20 tries")
        until("> ")
        os.write(terminal, b"/tree\n")
        until("? Go on")
        until("> ")
        os.write(terminal, b"\x04")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
