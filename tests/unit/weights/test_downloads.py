"""The queue: order, pause, resume, cancel, restarts; and the commands over it."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from desktop_app.errors import KnownError
from desktop_app.weights import command
from desktop_app.weights.downloads import Download, Downloads, safe_name
from desktop_app.weights.hub import Hub
from desktop_app.weights.hub_files import HubFile
from desktop_app.weights.places import System
from desktop_app.weights.shelf import Shelf
from desktop_app.weights.transfer import Patience
from tests.fakes.hub import FakeHub, Fault
from tests.fakes.hub_files import I32, U16, Shape, header, key

QUICK = Patience(0.01, 0.05, 20)


class Queue:
    """A queue that notes what its listeners hear."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub = hub
        self.folder = folder
        self.shelf = Shelf(folder / "profile", system=System(folder / "home", {}, "linux"))
        self.downloads = self.open()
        self.heard: list[tuple[float, tuple[Download, ...]]] = []
        self.changed = threading.Condition()
        self.downloads.add_listener(self.listen)

    def open(self) -> Downloads:
        state = self.folder / "profile" / "downloads.json"
        return Downloads(self.hub, self.shelf, state, patience=QUICK)

    def listen(self, items: tuple[Download, ...]) -> None:
        with self.changed:
            self.heard.append((time.monotonic(), items))
            self.changed.notify_all()

    def add(self, label: str) -> int:
        repository = self.hub.repository("maker/Tiny-GGUF")
        return self.downloads.add(repository, repository.quantisation(label))

    def until(self, check: Callable[[Download], bool]) -> Download:
        """Wait until a listener hears of a line for which `check` holds."""
        deadline = time.monotonic() + 10
        with self.changed:
            while True:
                for item in self.downloads.snapshot():
                    if check(item):
                        return item
                assert time.monotonic() < deadline, self.downloads.snapshot()
                self.changed.wait(0.2)

    def files(self) -> list[str]:
        return sorted(p.name for p in self.shelf.own_folder.rglob("*") if p.is_file())


@pytest.fixture
def queue(hub: Hub, tmp_path: Path) -> Iterator[Queue]:
    made = Queue(hub, tmp_path)
    yield made
    made.downloads.close()


def test_a_download_lands_on_the_shelf(queue: Queue) -> None:
    done = queue.downloads.wait(queue.add("Q8_0"), 20)
    assert (done.state, done.title, done.label) == ("done", "Tiny", "Q8_0")
    [entry] = queue.shelf.entries()
    assert (entry.title, entry.source, entry.state) == ("Tiny", "own", "ready")
    assert str(entry.path) == done.path
    assert queue.files() == ["tiny.Q8_0.gguf"]
    assert queue.shelf.verify(entry) == entry.sha256
    queue.downloads.clear_finished()
    assert queue.downloads.snapshot() == ()


def test_one_after_the_other_in_the_order_of_the_list(queue: Queue, fake: FakeHub) -> None:
    fake.rate = 2_000_000
    first = queue.add("Q4_0")
    second = queue.add("Q8_0")
    assert queue.add("Q8_0") == second  # not twice
    queue.until(lambda item: item.id == first and item.done_bytes > 0)
    assert [item.state for item in queue.downloads.snapshot()] == ["running", "queued"]
    queue.downloads.move(second, 0)
    assert [item.id for item in queue.downloads.snapshot()] == [second, first]
    fake.rate = 0
    assert queue.downloads.wait(first, 20).state == "done"
    assert queue.downloads.wait(second, 20).state == "done"


def test_progress_is_told_often_with_speed_and_time_left(queue: Queue, fake: FakeHub) -> None:
    fake.rate = 2_000_000
    queue.downloads.wait(queue.add("Q4_0"), 20)
    running = [(at, items[0]) for at, items in queue.heard if items and items[0].state == "running"]
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(running)]
    assert max(gaps) < 0.5
    late = [item for _, item in running if item.speed_bytes_per_s]
    assert late
    assert 1_000_000 < late[-1].speed_bytes_per_s < 4_000_000
    assert 0 < late[0].left_s < 3


def test_pause_and_resume(queue: Queue, fake: FakeHub) -> None:
    fake.rate = 2_000_000
    number = queue.add("Q4_0")
    queue.until(lambda item: item.done_bytes > 200_000)
    queue.downloads.pause(number)
    paused = queue.until(lambda item: item.state == "paused")
    assert paused.done_bytes > 200_000
    assert queue.files() == ["blob.Q4_0.gguf.part", "blob.Q4_0.gguf.part.json"]
    fake.rate = 0
    queue.downloads.resume(number)
    assert queue.downloads.wait(number, 20).state == "done"
    assert queue.files() == ["blob.Q4_0.gguf"]


def test_cancel_leaves_nothing(queue: Queue, fake: FakeHub) -> None:
    fake.rate = 1_000_000
    number = queue.add("Q4_0")
    waiting = queue.add("Q8_0")
    queue.until(lambda item: item.done_bytes > 100_000)
    queue.downloads.cancel(waiting)
    begin = time.monotonic()
    queue.downloads.cancel(number)
    with pytest.raises(KnownError, match="cancelled"):
        queue.downloads.wait(number, 5)
    assert time.monotonic() - begin < 0.5
    assert queue.downloads.snapshot() == ()
    assert list(queue.shelf.own_folder.iterdir()) == []
    with pytest.raises(KnownError):
        queue.downloads.pause(number)


def test_after_a_restart_it_waits_as_paused_and_goes_on(queue: Queue, fake: FakeHub) -> None:
    fake.rate = 1_000_000
    number = queue.add("Q4_0")
    queue.until(lambda item: item.done_bytes > 300_000)
    queue.downloads.close()
    fake.log.clear()
    again = queue.open()
    try:
        [item] = again.snapshot()
        assert (item.id, item.state) == (number, "paused")
        assert item.done_bytes > 300_000
        assert fake.log == []  # nothing connects by itself
        fake.rate = 0
        again.resume(number)
        assert again.wait(number, 20).state == "done"
        assert fake.log[1].range_start == item.done_bytes
    finally:
        again.close()


def test_the_order_outlives_a_restart(queue: Queue, fake: FakeHub) -> None:
    fake.rate = 500_000
    first, second = queue.add("Q4_0"), queue.add("Q8_0")
    queue.until(lambda item: item.id == first and item.done_bytes > 0)
    queue.downloads.pause(second)
    queue.downloads.move(second, 0)
    queue.downloads.close()
    again = queue.open()
    try:
        assert [item.id for item in again.snapshot()] == [second, first]
        assert {item.state for item in again.snapshot()} == {"paused"}
    finally:
        again.close()


def shards(folder: Path) -> list[Path]:
    """Weights in two files, as makers cut those of more than 50 GB."""
    tensors = Shape().tensors()
    paths = []
    for number in range(2):
        keys = [key("split.no", U16, number), key("split.count", U16, 2)]
        keys.append(key("split.tensors.count", I32, len(tensors)))
        data = header(Shape(name="Big").keys() + keys if number == 0 else keys, tensors[number::2])
        path = folder / f"big.F32-{number + 1:05d}-of-00002.gguf"
        path.write_bytes(data + bytes(1_000_000))
        paths.append(path)
    return paths


def test_all_parts_of_a_set_are_one_download(queue: Queue, fake: FakeHub) -> None:
    one, two = shards(fake.folder / "maker" / "Tiny-GGUF")
    sizes = [one.stat().st_size, two.stat().st_size]
    fake.rate = 2_000_000
    number = queue.add("F32")
    # Paused in the second part; the first one is there already.
    queue.until(lambda item: item.done_bytes > sizes[0] + 200_000)
    queue.downloads.pause(number)
    paused = queue.until(lambda item: item.state == "paused")
    assert (paused.finished_files, paused.total_bytes) == (1, sum(sizes))
    assert queue.files() == [one.name, two.name + ".part", two.name + ".part.json"]
    [half] = queue.shelf.entries()
    assert half.state == "incomplete"
    fake.rate = 0
    fake.log.clear()
    queue.downloads.resume(number)
    done = queue.downloads.wait(number, 20)
    assert (done.state, done.done_bytes) == ("done", sum(sizes))
    # Nothing of the first part came again.
    assert {Path(r.path).name for r in fake.log if r.origin == "files"} == {two.name}
    [entry] = queue.shelf.entries()
    assert (entry.title, entry.state, entry.size_bytes) == ("Big", "ready", sum(sizes))
    assert queue.files() == [one.name, two.name]
    queue.shelf.verify(entry)
    queue.shelf.remove(entry)
    assert queue.files() == []


def test_a_set_needs_room_for_all_of_its_parts(
    queue: Queue, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = shards(fake.folder / "maker" / "Tiny-GGUF")
    usage = shutil.disk_usage(queue.folder)
    # Room for either part, and for no two.
    tight = usage._replace(free=(64 << 20) + parts[0].stat().st_size * 3 // 2)
    monkeypatch.setattr("desktop_app.weights.transfer.shutil.disk_usage", lambda _path: tight)
    fake.log.clear()
    failed = queue.downloads.wait(queue.add("F32"), 20)
    assert (failed.state, failed.error) == ("failed", "disk-full")
    assert not [r for r in fake.log if r.origin == "files"]
    monkeypatch.undo()
    queue.downloads.resume(failed.id)
    assert queue.downloads.wait(failed.id, 20).state == "done"


def test_a_failure_is_kept_with_its_sentence_and_can_be_resumed(
    queue: Queue, fake: FakeHub
) -> None:
    number_of_faults = 3
    fake.plan.extend([Fault("flip", 100)] * number_of_faults)
    number = queue.add("Q4_0")
    failed = queue.downloads.wait(number, 20)
    assert (failed.state, failed.error) == ("failed", "weights-hash")
    assert failed.error_sentence.endswith(".")
    queue.downloads.resume(number)
    assert queue.downloads.wait(number, 20).state == "done"


def test_a_mirror_that_knows_only_the_newest_commit(queue: Queue, fake: FakeHub) -> None:
    fake.known_revisions = {"main"}
    done = queue.downloads.wait(queue.add("Q8_0"), 20)
    assert done.state == "done"
    assert queue.shelf.entries()[0].sha256


def test_a_hub_without_hashes_claims_nothing(queue: Queue, fake: FakeHub) -> None:
    queue.downloads.wait(queue.add("Q8_0"), 20)
    [checked] = queue.shelf.entries()
    assert checked.sha256
    queue.shelf.remove(checked)
    fake.linked = fake.tells_hashes = False
    done = queue.downloads.wait(queue.add("Q8_0"), 20)
    assert done.state == "done"
    [entry] = queue.shelf.entries()
    assert (entry.state, entry.sha256) == ("ready", "")
    source = fake.path("maker/Tiny-GGUF/tiny.Q8_0.gguf")
    assert source is not None
    assert entry.path.read_bytes() == source.read_bytes()


def test_names_that_every_system_takes() -> None:
    assert safe_name("a:b?.gguf") == "a_b_.gguf"
    assert safe_name("..") == "_"
    assert safe_name("CON.gguf") == "_CON.gguf"
    assert len(safe_name("x" * 500 + ".gguf")) == 200


def test_targets_stay_below_the_own_folder(queue: Queue) -> None:
    target = queue.downloads.target("maker/repo", HubFile("../../../etc/x.gguf", 1))
    assert target.resolve().is_relative_to(queue.shelf.own_folder.resolve())


def run(folder: Path, fake: FakeHub, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = ["--hub", fake.url] if "--offline" not in words else []
    args = parser.parse_args(["weights", words[0], *words[1:], *options])
    assert command.run(args, folder / "profile") == 0
    return capsys.readouterr().out


def test_the_commands(
    fake: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")

    def grove(*words: str) -> str:
        return run(tmp_path, fake, capsys, *words)

    assert "maker/Tiny-GGUF" in grove("search", "tiny")
    assert "Q8_0" in grove("files", "maker/Tiny-GGUF")
    assert "checked" in grove("get", "maker/Tiny-GGUF:Q8_0")
    listed = json.loads(grove("list", "--json"))
    assert [entry["title"] for entry in listed] == ["Tiny"]
    fit = json.loads(grove("fit", "Tiny", "--json"))
    assert fit["verdict"] == "well"
    assert json.loads(grove("fit", "maker/Tiny-GGUF:Q8_0", "--json"))["weights_bytes"] > 0
    assert "sound" in grove("verify", "tiny")
    assert "llama-3.2-3b" in grove("search", "--offline")
    assert "deleted" in grove("remove", "Tiny")
    assert json.loads(grove("list", "--json")) == []
    fake.gated = {"maker/Tiny-GGUF"}
    monkeypatch.setenv("HF_TOKEN", "hf_elsewhere")  # not for a hub that --hub names
    with pytest.raises(KnownError) as caught:
        grove("get", "maker/Tiny-GGUF:Q8_0")
    assert caught.value.code == "hub-gated"
    (tmp_path / "token").write_text("hf_right\n", encoding="utf-8")
    assert "checked" in grove(
        "get", "maker/Tiny-GGUF:Q8_0", "--token-file", str(tmp_path / "token")
    )
    seen = {line.authorization for line in fake.log}
    assert seen == {"", "Bearer hf_right"}
    with pytest.raises(KnownError) as caught:
        grove("search", "x", "--offline")
    assert caught.value.code == "offline"
    log = (tmp_path / "profile/connections.jsonl").read_text(encoding="utf-8").splitlines()
    purposes = [json.loads(line)["purpose"] for line in log]
    assert purposes[:6] == ["search", "files", "files", "download", "files", "header"]
