"""Will it run: arithmetic, words, and the speed that is learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from desktop_app.weights.catalogue import Catalogue, Suggestion
from desktop_app.weights.fit import (
    Device,
    Machine,
    Plan,
    SpeedBook,
    kv_bytes,
    load_of,
    load_of_size,
    predict,
    size_text,
)
from desktop_app.weights.gguf import Header, TensorInfo, read_header
from desktop_app.weights.measuring import best_moment, machine_identity, measure_memory_speed
from desktop_app.weights.places import System
from desktop_app.weights.room import WeightsRoom
from tests.fakes.hub_files import Shape, header

GB = 10**9
LAPTOP = Machine(16 * GB, 11 * GB, 8)


def network(**shape: object) -> Header:
    made = Shape(**shape)  # type: ignore[arg-type] # the tests name fields of Shape
    data = header(made.keys(), made.tensors())
    size = sum(-(-t.size_bytes // 32) * 32 for t in _tensors(data))
    return read_header(_Sized(data, len(data) + size))


class _Sized:
    """A file whose tensors need not be there to be measured."""

    def __init__(self, data: bytes, size_bytes: int) -> None:
        self.data, self.size_bytes = data, size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        piece = self.data[offset : offset + length]
        return piece + bytes(min(length, self.size_bytes - offset) - len(piece))


def _tensors(data: bytes) -> tuple[TensorInfo, ...]:
    return read_header(_Sized(data, 10**12)).tensors


SEVEN = {"blocks": 32, "embedding": 4096, "feed_forward": 11008, "heads": 32, "kv_heads": 32,
         "vocabulary": 32000, "context": 4096, "kind": "Q4_K"}  # fmt: skip


def test_the_kv_cache_of_a_7b() -> None:
    load = load_of(network(**SEVEN))
    # 32 blocks × 2 × 4,096 values × 2 bytes = 0.5 MB a token, as for every old LLaMA 7B.
    assert kv_bytes(load, 1, "f16") == 256 * 524_288
    assert kv_bytes(load, 4096, "f16") == 4096 * 524_288
    assert kv_bytes(load, 4096, "q8_0") == 4096 * 524_288 * 34 // 64
    grouped = load_of(network(**{**SEVEN, "kv_heads": 8}))
    assert kv_bytes(grouped, 4096, "f16") == kv_bytes(load, 4096, "f16") // 4


def test_memory_is_weights_cache_and_buffers() -> None:
    found = network(**SEVEN)
    fit = predict(found, LAPTOP, plan=Plan(context_length=4096))
    assert fit.weights_bytes == found.tensor_bytes
    assert fit.kv_bytes == 2 * GB + 147_483_648
    parts = fit.weights_bytes + fit.kv_bytes + fit.compute_bytes
    assert 40e6 < fit.memory_bytes - parts < 60e6
    # Rewritten matrices are there twice where the file stays mapped.
    assert fit.peak_bytes == fit.memory_bytes
    mapped = predict(found, LAPTOP, plan=Plan(context_length=4096, mapped=True))
    assert mapped.peak_bytes > fit.memory_bytes + 0.9 * fit.weights_bytes
    smaller = predict(found, LAPTOP, plan=Plan(context_length=1024, kv_type="q8_0"))
    assert smaller.memory_bytes < fit.memory_bytes - 1.5 * GB


def test_the_smaller_cache_is_taken_where_the_better_one_does_not_fit() -> None:
    found = network(**SEVEN)
    plan = Plan(context_length=4096, kv_type="auto")
    roomy = predict(found, Machine(16 * GB, 8 * GB, 8), plan=plan)
    assert roomy.kv_bytes == kv_bytes(load_of(found), 4096, "f16")
    tight = predict(found, Machine(16 * GB, int(5.6 * GB), 8), plan=plan)
    assert tight.kv_bytes == kv_bytes(load_of(found), 4096, "q8_0")
    assert tight.verdict != "too-big"
    # As the engine does when nobody chose a length: rather smaller numbers than a shorter context.
    free = predict(found, Machine(16 * GB, int(5.6 * GB), 8), plan=Plan(kv_type="auto"))
    assert (free.context_length, free.kv_bytes) == (4096, tight.kv_bytes)
    hopeless = predict(found, Machine(16 * GB, GB, 8), plan=plan)
    assert hopeless.verdict == "too-big"
    assert hopeless.kv_bytes == roomy.kv_bytes


def test_verdicts_in_words() -> None:
    book = SpeedBook()
    book.record_memory_speed(30 * GB)
    small = predict(network(**SEVEN), LAPTOP, book)
    assert (small.verdict, small.headline) == ("well", "Runs well, about 7 tokens/s")
    slow_book = SpeedBook()
    slow_book.record_memory_speed(8 * GB)
    slow = predict(network(**SEVEN), LAPTOP, slow_book)
    assert slow.verdict == "slow"
    assert "because 4.2 GB of weights" not in slow.headline
    assert "are read for every token" in slow.sentence
    full = predict(network(**SEVEN), Machine(16 * GB, 2 * GB, 8), book)
    assert full.context_length == 4096
    assert full.verdict == "too-big"
    assert "Too big right now" in full.sentence
    never = predict(load_of_size(41 * GB, "Q4_K_M"), LAPTOP, book)
    assert never.headline == "Needs 46 GB of memory"
    assert "Too big for this computer" in never.sentence
    unknown = predict(network(**SEVEN), LAPTOP, SpeedBook())
    assert (unknown.verdict, unknown.tokens_per_second) == ("well", 0.0)


def test_what_is_unloaded_first_counts_as_free() -> None:
    full = Machine(16 * GB, 2 * GB, 8)
    assert predict(network(**SEVEN), full).verdict == "too-big"
    assert predict(network(**SEVEN), full, unloading_bytes=6 * GB).verdict == "well"


def test_an_automatic_context_shrinks_until_it_fits() -> None:
    found = network(**SEVEN)
    tight = predict(found, Machine(16 * GB, 5 * GB, 8))
    assert tight.verdict == "well"
    assert tight.context_length == 1024
    chosen = predict(found, Machine(16 * GB, 5 * GB, 8), plan=Plan(context_length=4096))
    assert chosen.verdict == "too-big"


def test_layers_on_graphics_devices() -> None:
    found = network(**SEVEN)
    all_of_it = predict(found, Machine(16 * GB, 11 * GB, 8, devices=(Device("gpu", 24 * GB),)))
    assert all_of_it.gpu_layers == 33
    assert all_of_it.headline == "Runs well on the graphics card"
    assert all_of_it.memory_bytes < 0.5 * GB
    some = predict(found, Machine(16 * GB, 11 * GB, 8, devices=(Device("gpu", 3 * GB),)))
    assert 5 < some.gpu_layers < 20
    none = predict(found, LAPTOP, plan=Plan(gpu_layers=0))
    assert none.gpu_layers == 0


def test_speed_is_learned_from_real_runs(tmp_path: Path) -> None:
    book = SpeedBook.load(tmp_path / "speed.json")
    assert book.is_empty
    half = network(**{**SEVEN, "blocks": 16})
    book.record(half, 10.0, context_used=512)
    again = SpeedBook.load(tmp_path / "speed.json")
    same = again.tokens_per_second(load_of(half), Plan())
    assert same == pytest.approx(10.0, rel=0.01)
    whole = again.tokens_per_second(load_of(network(**SEVEN)), Plan())
    assert 5.0 <= whole <= 5.5  # twice the blocks, one output matrix
    file = tmp_path / "speed.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    for damaged in ({**data, "runs": {"Q4_K": "fast", "Q8_0": ["x", -1]}}, {**data, "runs": 3}, 5):
        file.write_text(json.dumps(damaged), encoding="utf-8")
        assert SpeedBook.load(file).is_empty
    # A profile that was carried to another computer.
    file.write_text(json.dumps({**data, "machine": "another"}), encoding="utf-8")
    assert SpeedBook.load(file).is_empty


def test_busy_moments_do_not_move_a_judgement(tmp_path: Path) -> None:
    book = SpeedBook.load(tmp_path / "speed.json")
    found = network(**SEVEN)
    told = []
    for speed in (10.0, 9.8, 3.0, 10.2, 1.0, 9.9, 2.0, 10.1, 4.0):
        book.record(found, speed, context_used=512)
        told.append(book.tokens_per_second(load_of(found), Plan()))
    assert min(told) > 9.7
    assert max(told) < 10.3
    for _ in range(9):  # slow for good: on its battery, say
        book.record(found, 5.0, context_used=512)
    assert book.tokens_per_second(load_of(found), Plan()) == pytest.approx(5.0, rel=0.02)


def test_two_books_over_one_file_lose_nothing(tmp_path: Path) -> None:
    """The weights page and the session each have one."""
    page = SpeedBook.load(tmp_path / "speed.json")
    session = SpeedBook.load(tmp_path / "speed.json")
    session.record(network(**SEVEN), 10.0)
    page.remember_recommended("llama")
    again = SpeedBook.load(tmp_path / "speed.json")
    assert again.has_runs
    assert again.recommended == "llama"
    page.read()
    assert page.has_runs


def test_the_recommendation_stands_still(tmp_path: Path) -> None:
    book = SpeedBook.load(tmp_path / "speed.json")
    book.record_memory_speed(30 * GB)
    catalogue = Catalogue.load()

    def recommended(free_gb: float) -> Suggestion:
        machine = Machine(16 * GB, int(free_gb * GB), 8)
        return next(s for s in catalogue.suggest(machine, book) if s.recommended)

    first = recommended(6.0).entry.id
    free = 6.0
    while recommended(free).entry.id == first:
        free -= 0.02
    second = recommended(free).entry.id
    # Around the edge, memory that breathes moves nothing, and neither does a little speed.
    for wobble in (0.1, -0.02, 0.15, 0.0, 0.12):
        assert recommended(free + wobble).entry.id == second
    assert recommended(6.0).entry.id == first
    for wobble in (0.02, 0.3, 0.04, 0.1):
        assert recommended(free + wobble).entry.id == first
    # The next start remembers.
    again = SpeedBook.load(tmp_path / "speed.json")
    assert again.recommended == first


def test_free_memory_is_told_anew_only_when_it_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [8 * GB]
    monkeypatch.setattr(
        Machine, "here", classmethod(lambda cls, _folder, _devices: cls(16 * GB, free[0], 8))
    )
    room = WeightsRoom(tmp_path, system=System(tmp_path, {}, "linux"))
    told = []
    for moved in (0, 200, -300, 400, -469, -471, -200, 100):
        free[0] = 8 * GB + moved * 1_000_000
        told.append(room.machine().free_bytes)
    room.close()
    assert told[:5] == [8 * GB] * 5
    assert told[5:7] == [8 * GB - 471_000_000] * 2
    assert told[7] == 8 * GB + 100_000_000


def test_experts_are_read_in_part() -> None:
    load = load_of_size(12 * GB, "MXFP4")
    assert sum(load.read_bytes.values()) > 11 * GB
    assert load.block_count > 20


def test_sizes_in_words() -> None:
    texts = [size_text(n) for n in (0, 18_400, 3_000_000, 812_000_000, 2_020_000_000, 41.4 * GB)]
    assert texts == ["0 kB", "18 kB", "3 MB", "812 MB", "2.0 GB", "41 GB"]


def test_memory_is_measured_three_times_on_a_computer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter([5e9, 20e9, 9e9])  # the first and third start had busy machines
    monkeypatch.setattr("desktop_app.weights.room.measure_memory_speed", lambda: next(speeds))
    told = []
    for _start in range(5):
        room = WeightsRoom(tmp_path, system=System(tmp_path, {}, "linux"))
        room.measure_speed_once()
        room.measure_speed_once()
        told.append(room.speeds.reference("Q4_K"))
        room.close()
    assert told == [5e9, 20e9, 20e9, 20e9, 20e9]


def test_the_best_moment_is_one_of_all_threads_together() -> None:
    ms = 0.001
    # Two threads in turns: never more than one at a time, so never twice one's speed.
    turns = [(2 * n * ms, (2 * n + 1) * ms) for n in range(50)]
    turns += [((2 * n + 1) * ms, (2 * n + 2) * ms) for n in range(50)]
    assert best_moment(turns, 1_000_000) == pytest.approx(1e9, rel=0.02)
    # Both at once, with other programs in between for most of the time.
    busy = [(n * ms, (n + 1) * ms) for n in range(40)] * 2
    busy += [(t * ms, (t + 20) * ms) for t in range(40, 200, 20)] * 2
    assert best_moment(busy, 1_000_000) == pytest.approx(2e9, rel=0.02)
    assert best_moment([], 1) == 0


def test_memory_speed_is_measured() -> None:
    assert machine_identity() == machine_identity() != ""
    speed = measure_memory_speed(1, seconds=0.02)
    assert 1e8 < speed < 1e12
    machine = Machine.here(Path("/nowhere/at/all"))
    assert 0 < machine.free_bytes <= machine.total_bytes
    assert machine.disk_free_bytes > 0
