"""One download: it arrives whole or not at all."""

from __future__ import annotations

import datetime
import email.utils
import errno
import hashlib
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from desktop_app.errors import KnownError
from desktop_app.weights.answers import access_error, redirected, retry_after_s
from desktop_app.weights.connections import Connections
from desktop_app.weights.part_file import PartFile
from desktop_app.weights.transfer import (
    Patience,
    Progress,
    Result,
    SpeedLimit,
    Transfer,
    Wanted,
    discard,
)
from tests.fakes.hub import FakeHub, Fault

QUICK = Patience(backoff_s=0.01, longest_wait_s=0.05, without_progress_s=20)
NAME = "maker/Tiny-GGUF/blob.Q4_0.gguf"


class Case:
    """A hub, a file on it and where it should go."""

    def __init__(self, fake: FakeHub, connections: Connections, folder: Path) -> None:
        self.fake = fake
        self.connections = connections
        source = fake.path(NAME)
        assert source is not None
        self.source = source
        self.target = folder / "out" / "blob.gguf"
        self.url = f"{fake.url}/maker/Tiny-GGUF/resolve/main/blob.Q4_0.gguf"

    def wanted(self) -> Wanted:
        return Wanted(self.url, self.source.stat().st_size, self.fake.sha256(self.source))

    def run(self, wanted: Wanted | None = None, **options: Any) -> Result:
        progress, stop = options.pop("progress", None), options.pop("stop", None)
        patience = options.pop("patience", QUICK)
        with self.connections.action("download", "blob", cancel=stop):
            transfer = Transfer(
                self.connections, wanted or self.wanted(), self.target, patience=patience, **options
            )
            return transfer.run(progress, stop)

    def left(self) -> list[str]:
        return sorted(p.name for p in self.target.parent.iterdir())

    def assert_arrived(self) -> None:
        assert self.target.read_bytes() == self.source.read_bytes()
        assert self.left() == ["blob.gguf"]


@pytest.fixture
def case(fake: FakeHub, connections: Connections, tmp_path: Path) -> Case:
    return Case(fake, connections, tmp_path)


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_arrives(case: Case, linked: bool, direct: bool) -> None:
    case.fake.linked, case.fake.direct = linked, direct
    seen: list[Progress] = []
    result = case.run(progress=seen.append)
    case.assert_arrived()
    assert result.verified
    assert result.sha256 == case.fake.sha256(case.source)
    assert (result.fetched_bytes, result.breaks) == (case.source.stat().st_size, 0)
    assert seen[-1].done_bytes == seen[-1].total_bytes == case.source.stat().st_size


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("kind", ["close", "stall", "429", "500", "503", "expired"])
def test_goes_on_after_a_break(case: Case, kind: str, linked: bool) -> None:
    case.fake.linked = linked
    case.fake.plan.append(Fault(kind, 1_000_001))
    result = case.run()
    case.assert_arrived()
    assert result.breaks == 1
    assert result.fetched_bytes == case.source.stat().st_size  # nothing twice


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("kind", ["flip", "short", "garbage"])
def test_false_bytes_are_never_accepted(case: Case, kind: str, linked: bool) -> None:
    case.fake.linked = linked
    case.fake.plan.append(Fault(kind, 1_000_001))
    assert case.run().verified
    case.assert_arrived()


def test_gives_up_on_bytes_that_stay_false(case: Case) -> None:
    case.fake.plan.extend([Fault("flip", 5)] * 3)
    with pytest.raises(KnownError) as caught:
        case.run()
    assert caught.value.code == "weights-hash"
    assert case.left() == []


@pytest.mark.parametrize("kind", ["ignore-range", "416", "wrong-range"])
def test_one_server_of_many_that_knows_no_ranges_costs_nothing(case: Case, kind: str) -> None:
    case.fake.plan.extend([Fault("close", 2_000_000), *[Fault(kind)] * 4])
    result = case.run()
    case.assert_arrived()
    assert (result.breaks, result.restarts) == (5, 0)
    # What a refused answer had sent ahead is not read.
    assert result.fetched_bytes == case.source.stat().st_size


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize(
    ("kind", "restarts"), [("ignore-range", 0), ("416", 1), ("wrong-range", 1)]
)
def test_a_server_that_never_knows_ranges_is_used_all_the_same(
    case: Case, kind: str, restarts: int, linked: bool
) -> None:
    case.fake.linked = linked
    case.fake.plan.extend([Fault("close", 2_000_000), *[Fault(kind)] * 5])
    assert case.run().restarts == restarts
    case.assert_arrived()


@pytest.mark.parametrize("linked", [True, False])
def test_a_file_that_changes_in_between_starts_clean(case: Case, linked: bool) -> None:
    case.fake.linked = linked
    new = os.urandom(case.source.stat().st_size + (0 if linked else 1000))

    def replace() -> None:
        case.source.write_bytes(new)

    case.fake.on_change = replace
    case.fake.plan.append(Fault("changed", 2_000_000))
    if linked:
        result = case.run()
        assert result.sha256 == hashlib.sha256(new).hexdigest()
        case.assert_arrived()
    else:
        # Without the hub's word the listing counts: this is not what was listed.
        with pytest.raises(KnownError) as caught:
            case.run()
        assert caught.value.code == "hub-changed"
        assert not case.target.exists()


def test_resumes_in_a_later_run(case: Case) -> None:
    stop = threading.Event()

    def after_a_megabyte(progress: Progress) -> None:
        if progress.phase == "downloading":
            stop.set()

    case.fake.rate = 4_000_000
    with pytest.raises(KnownError) as caught:
        case.run(progress=after_a_megabyte, stop=stop)
    assert caught.value.code == "cancelled"
    part = case.target.with_name("blob.gguf.part")
    have = part.stat().st_size
    assert have > 0
    case.fake.rate = 0
    result = case.run()
    case.assert_arrived()
    assert result.fetched_bytes == case.source.stat().st_size - have


def test_a_part_of_unknown_origin_is_not_trusted(case: Case) -> None:
    case.target.parent.mkdir(parents=True)
    part = case.target.with_name("blob.gguf.part")
    part.write_bytes(bytes(1_000_000))
    case.run()
    case.assert_arrived()
    part.write_bytes(bytes(1_000_000))
    case.target.with_name("blob.gguf.part.json").write_text("{not json", encoding="utf-8")
    case.target.unlink()
    case.run()
    case.assert_arrived()


def test_after_a_restart_of_the_computer_only_flushed_bytes_count(case: Case) -> None:
    case.fake.plan.append(Fault("close", 2_000_000))
    with pytest.raises(KnownError):
        case.run(patience=Patience(backoff_s=0, without_progress_s=-1))
    facts = case.target.with_name("blob.gguf.part.json")
    before = facts.read_text(encoding="utf-8")
    boot = PartFile(case.target)
    boot._open()
    known = boot._read_facts().boot_time
    boot._close()
    facts.write_text(before.replace(str(known), str(known - 9999)), encoding="utf-8")
    assert case.run().fetched_bytes == case.source.stat().st_size
    case.assert_arrived()


def test_an_update_keeps_the_old_file_until_the_new_one_is_right(case: Case) -> None:
    case.target.parent.mkdir(parents=True)
    case.target.write_bytes(b"old but good")
    case.fake.plan.extend([Fault("flip", 100)] * 3)
    with pytest.raises(KnownError):
        case.run()
    assert case.target.read_bytes() == b"old but good"
    case.run()
    case.assert_arrived()


def test_a_file_that_is_there_already_is_checked_and_not_fetched(case: Case) -> None:
    case.run()
    case.target.with_name("blob.gguf.part.json").write_text("{}", encoding="utf-8")
    case.fake.log.clear()
    assert case.run().fetched_bytes == 0
    assert case.fake.log == []
    case.assert_arrived()


@pytest.mark.parametrize("where", ["flow", "silence"])
def test_cancel_is_quick(case: Case, where: str) -> None:
    if where == "silence":
        case.fake.plan.append(Fault("stall", 500_000))
        case.connections.stall_timeout_s = 30
    else:
        case.fake.rate = 500_000
    stop, moved = threading.Event(), threading.Event()
    ended: list[float] = []

    def work() -> None:
        with pytest.raises(KnownError, match="cancelled"):
            case.run(stop=stop, progress=lambda _p: moved.set())
        ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    assert moved.wait(5)
    while case.connections.entries()[0].received_bytes < 400_000:
        time.sleep(0.005)
    asked = time.monotonic()
    stop.set()
    thread.join()
    assert ended[0] - asked < 0.2
    discard(case.target)
    assert case.left() == []


def test_waits_as_long_as_the_hub_asks(case: Case) -> None:
    case.fake.hub_plan.append("429:1")
    seen: list[Progress] = []
    begin = time.monotonic()
    case.run(progress=seen.append)
    assert time.monotonic() - begin >= 1
    waits = [p for p in seen if p.phase == "waiting"]
    assert [(p.wait_s, p.reason) for p in waits] == [(1.0, "http-429")]


def test_a_date_to_wait_until_is_understood() -> None:
    soon = email.utils.format_datetime(
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90), usegmt=True
    )
    assert 80 < retry_after_s(soon) <= 90
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert (retry_after_s(" 7 "), retry_after_s("99999"), retry_after_s("soon")) == (7, 3600, 0)


def test_redirects_keep_protection() -> None:
    assert redirected("https://a/x/y", "../z") == "https://a/z"
    assert redirected("http://a/x", "https://b/y") == "https://b/y"
    for location in ("http://b/y", "ftp://b/y", "file:///etc/passwd"):
        with pytest.raises(KnownError) as caught:
            redirected("https://a/x", location)
        assert caught.value.code == "hub-refused"


def test_gives_up_after_patience(case: Case) -> None:
    case.fake.hub_plan.extend(["503"] * 1000)
    with pytest.raises(KnownError) as caught:
        case.run(patience=Patience(0.001, 0.01, 0.1))
    assert caught.value.code == "network"


@pytest.mark.parametrize(
    ("token", "code"), [("", "hub-gated"), ("wrong", "hub-gated"), ("hf_right", "")]
)
def test_gated_weights_explain_themselves(case: Case, token: str, code: str) -> None:
    case.fake.gated = {"maker/Tiny-GGUF"}
    if not code:
        case.run(token=token)
        case.assert_arrived()
        return
    with pytest.raises(KnownError) as caught:
        case.run(token=token)
    assert caught.value.code == code
    assert f"{case.fake.url}/maker/Tiny-GGUF " in caught.value.sentence


def test_the_token_goes_to_the_hub_alone(case: Case) -> None:
    case.fake.plan.append(Fault("close", 1_000_000))
    case.run(token="hf_secret")
    seen = {(r.origin, bool(r.authorization)) for r in case.fake.log}
    assert seen == {("hub", True), ("files", False)}


def test_missing_and_refused(case: Case) -> None:
    with pytest.raises(KnownError) as caught:
        case.run(Wanted(case.url.replace("blob", "nothing"), 10, ""))
    assert caught.value.code == "hub-missing"
    case.fake.plan.extend([Fault("expired")] * 20)
    with pytest.raises(KnownError) as caught:
        case.run()
    assert caught.value.code == "hub-refused"
    assert access_error(401, "", "http://hub/a/b/resolve/main/c").code == "hub-login"


def test_a_full_disk_is_told_before_and_loses_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(case.source)
    case.fake.plan.append(Fault("close", 2_000_000))
    full = usage._replace(free=1_000_000)
    calls: list[int] = []

    def answer(_path: object) -> Any:
        calls.append(1)
        return usage if len(calls) == 1 else full

    monkeypatch.setattr("desktop_app.weights.transfer.shutil.disk_usage", answer)
    with pytest.raises(KnownError) as caught:
        case.run()
    assert caught.value.code == "disk-full"
    assert case.target.with_name("blob.gguf.part").stat().st_size == 2_000_000
    monkeypatch.undo()
    assert case.run().fetched_bytes == case.source.stat().st_size - 2_000_000
    case.assert_arrived()


def test_a_disk_that_fills_up_while_writing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    append, room = PartFile.append, 2_000_000

    def full(part: PartFile, data: bytes) -> None:
        if part.size + len(data) > room:
            append(part, data[: room - part.size])  # as a disk does: some of it still goes
            raise OSError(errno.ENOSPC, "No space left on device")
        append(part, data)

    monkeypatch.setattr(PartFile, "append", full)
    with pytest.raises(KnownError) as caught:
        case.run()
    assert caught.value.code == "disk-full"
    monkeypatch.undo()
    assert case.run().fetched_bytes == case.source.stat().st_size - room
    case.assert_arrived()


def test_two_at_once_are_refused(case: Case) -> None:
    case.target.parent.mkdir(parents=True)
    with PartFile(case.target) as other:
        other.recover(lambda _done, _total: None)
        with pytest.raises(KnownError) as caught:
            case.run()
        assert caught.value.code == "busy"
        assert other.path.exists()


def test_the_speed_limit_holds(case: Case) -> None:
    begin = time.monotonic()
    case.run(limit=SpeedLimit(3_000_000))
    took = time.monotonic() - begin
    assert 0.7 < took < 5


def test_offline_refuses_and_cuts(case: Case) -> None:
    case.connections.set_offline(True)
    with pytest.raises(KnownError) as caught:
        case.run()
    assert caught.value.code == "offline"
    assert case.fake.log == []
    case.connections.set_offline(False)
    case.fake.rate = 1_000_000

    def switch(progress: Progress) -> None:
        if progress.phase == "downloading":
            case.connections.set_offline(True)

    with pytest.raises(KnownError) as caught:
        case.run(progress=switch)
    assert caught.value.code == "offline"


def test_a_slow_disk_does_not_hold_up_a_cancel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, flushing = threading.Event(), threading.Event()

    def fsync(_handle: int) -> None:
        if threading.current_thread().name == "grove-flush":
            flushing.set()
            slow.wait(10)

    monkeypatch.setattr("desktop_app.weights.part_file.os.fsync", fsync)
    part = PartFile(tmp_path / "x")
    with part:
        part.recover(lambda _done, _total: None)
        part.set_facts(part.facts)
        piece = bytes(256 << 10)  # as they come over the network
        for _ in range(65 * 4):
            part.append(piece)
        assert flushing.wait(5)
        begin = time.monotonic()
    part.discard()
    assert time.monotonic() - begin < 0.15
    slow.set()
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_at_the_end_does_not_hold_up_a_cancel(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, flushing, stop = threading.Event(), threading.Event(), threading.Event()
    fsync = os.fsync

    def slowly(handle: int) -> None:
        if threading.current_thread().name == "grove-flush":
            flushing.set()
            slow.wait(10)
        fsync(handle)

    monkeypatch.setattr("desktop_app.weights.part_file.os.fsync", slowly)
    ended: list[float] = []

    def work() -> None:
        with pytest.raises(KnownError, match="cancelled"):
            case.run(stop=stop)
        ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    assert flushing.wait(10)
    asked = time.monotonic()
    stop.set()
    thread.join()
    assert ended[0] - asked < 0.2
    assert not case.target.exists()
    # Nothing is lost either, and the next run need not wait for that disk.
    monkeypatch.undo()
    assert case.run().fetched_bytes == 0
    slow.set()
    case.assert_arrived()


def test_a_disk_that_fails_at_the_end_is_told(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_handle: int) -> None:
        if threading.current_thread().name == "grove-flush":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("desktop_app.weights.part_file.os.fsync", failing)
    with pytest.raises(KnownError) as caught:
        case.run()
    assert caught.value.code == "disk-error"
    assert not case.target.exists()
