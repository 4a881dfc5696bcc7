"""The branch cache against a memory that keeps books: nothing lost, crossed or forged.

`BookMemory` behaves as llama.cpp's unified KV cache does, but what it holds for a position is a
digest of the tokens up to there.  So a state that came back at the wrong place, for other tokens,
or half, is seen at once.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from desktop_app.inference.branches import Branch, Branches, shared_length
from desktop_app.inference.parked_files import forget_on_disk, read_header
from desktop_app.inference.parking import BLOCK_TOKENS, Parking

BIG = 1 << 40


def digest(before: str, token: int) -> str:
    """What a right state is for `token` behind the state `before`."""
    return hashlib.sha256(f"{before} {token}".encode()).hexdigest()[:16]


class BookMemory:
    """Positions and digests per sequence; cells are counted as a unified cache counts them."""

    def __init__(self, *, length: int = 4096, sequences: int = 16, cuts: bool = True) -> None:
        self.length, self.sequences, self.cuts = length, sequences, cuts
        self.held: list[dict[int, str]] = [{} for _ in range(sequences)]
        self.restored = 0

    def copy(self, source: int, target: int, first: int, end: int) -> None:
        assert not self.held[target] or self.cuts
        end = end if end >= 0 else BIG
        self.held[target] |= {p: v for p, v in self.held[source].items() if first <= p < end}

    def remove(self, sequence: int, first: int = 0, end: int = -1) -> bool:
        end = end if end >= 0 else BIG
        inside = [p for p in self.held[sequence] if first <= p < end]
        if not self.cuts and inside and len(inside) < len(self.held[sequence]):
            return False
        for position in inside:
            del self.held[sequence][position]
        return True

    def span(self, sequence: int) -> tuple[int, int]:
        held = self.held[sequence]
        return (min(held), max(held)) if held else (-1, -1)

    def save(self, sequence: int) -> bytes:
        return json.dumps(sorted(self.held[sequence].items())).encode()

    def restore(self, sequence: int, data: bytes) -> bool:
        self.restored += 1
        self.held[sequence] = {int(p): v for p, v in json.loads(data)}
        return True

    def read(self, branch: Branch, tokens: list[int]) -> None:
        """Evaluate tokens behind a branch, as a batch would."""
        held = self.held[branch.sequence]
        for token in tokens:
            place = len(branch.tokens)
            held[place] = digest(held.get(place - 1, ""), token)
            branch.tokens.append(token)

    def check(self, branch: Branch) -> None:
        """Every position of a branch must hold the state of its own tokens."""
        held = self.held[branch.sequence]
        assert sorted(held) == list(range(len(branch.tokens)))
        state = ""
        for position, token in enumerate(branch.tokens):
            state = digest(state, token)
            assert held[position] == state


def parking(folder: Path | None = None, memory_bytes: int = BIG, who: str = "w") -> Parking:
    return Parking(who, memory_bytes=memory_bytes, folder=folder, disk_bytes=BIG)


def settle(branches: Branches) -> None:
    while branches.idle_work():
        pass


def visit(memory: BookMemory, branches: Branches, prompt: list[int], chat: str = "c") -> int:
    """Read a prompt and write four tokens behind it; how many tokens of the prompt were read."""
    branch = branches.take(prompt, chat)
    assert branch is not None
    assert branch.tokens == prompt[: len(branch.tokens)]
    assert len(branch.tokens) < len(prompt)
    memory.check(branch)
    read = len(prompt) - len(branch.tokens)
    while len(branch.tokens) < len(prompt):
        limit = branches.read_limit(branch, len(prompt))
        memory.read(branch, prompt[len(branch.tokens) : limit])
        branches.has_read(branch, len(prompt))
    memory.read(branch, [7, 8, 9])
    memory.check(branch)
    branches.give_back(branch)
    return read


def story(seed: int, size: int) -> list[int]:
    """Tokens that no story of another seed has."""
    chooser = random.Random(seed)
    return [seed * 1000 + chooser.randrange(1000) for _ in range(size)]


def test_shared_length() -> None:
    assert shared_length([1, 2, 3], [1, 2, 4, 5]) == 2
    assert shared_length([], [1]) == 0
    assert shared_length([1, 2], [1, 2, 3]) == 2


def test_asking_again_reads_one_token() -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(), can_roll_back=True)
    prompt = story(1, 500)
    assert visit(memory, branches, prompt) == 500
    for _ in range(3):
        assert visit(memory, branches, prompt) == 1
    assert visit(memory, branches, prompt[:200]) == 1
    assert visit(memory, branches, [*prompt, 7, 8, 9, 5, 6]) == 2


def test_only_what_is_written_or_was_used_last_is_resident() -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(), can_roll_back=True)
    for number in range(6):
        visit(memory, branches, story(number, 300))
    assert sum(bool(held) for held in memory.held) == 1
    for number in range(6):
        assert visit(memory, branches, story(number, 300)) == 1


def test_hops_among_branches_read_only_what_is_new(tmp_path: Path) -> None:
    chooser = random.Random(5)
    beginning = story(0, 1000)
    paths = [beginning + story(n, chooser.randint(60, 300)) for n in range(1, 33)]
    memory = BookMemory(length=8192)
    store = parking(tmp_path)
    branches = Branches(memory, store, can_roll_back=True)
    read = sum(visit(memory, branches, path) for path in paths)
    unique = len({tuple(path[:i]) for path in paths for i in range(1, len(path) + 1)})
    assert read <= unique + len(paths)
    hops = [chooser.choice(paths) for _ in range(200)]
    assert sum(visit(memory, branches, path) for path in hops) == 200
    settle(branches)
    kept = sum(len(block.tokens) for block in store._blocks.values())
    assert kept <= 1.1 * (unique + 3 * len(paths))
    # After a restart, too.
    memory = BookMemory(length=8192)
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    assert sum(visit(memory, branches, path) for path in hops) == 200


def test_a_cap_on_memory_holds_and_what_is_on_disk_comes_back(tmp_path: Path) -> None:
    memory = BookMemory()
    store = parking(tmp_path, memory_bytes=60_000)
    branches = Branches(memory, store, can_roll_back=True)
    for number in range(20):
        visit(memory, branches, story(number, 400))
        settle(branches)
        assert store.memory_used <= 60_000
    assert [visit(memory, branches, story(n, 400)) for n in range(20)] == [1] * 20


def test_a_cap_in_memory_only_forgets_the_oldest() -> None:
    memory = BookMemory()
    store = parking(memory_bytes=60_000)
    branches = Branches(memory, store, can_roll_back=True)
    for number in range(20):
        visit(memory, branches, story(number, 400))
        settle(branches)
        assert store.memory_used <= 60_000
    assert visit(memory, branches, story(19, 400)) == 1
    assert visit(memory, branches, story(0, 400)) == 400


def test_a_cap_on_disk_holds(tmp_path: Path) -> None:
    memory = BookMemory()
    store = Parking("w", memory_bytes=BIG, folder=tmp_path, disk_bytes=100_000)
    branches = Branches(memory, store, can_roll_back=True)
    for number in range(20):
        visit(memory, branches, story(number, 400))
        settle(branches)
    assert sum(f.stat().st_size for f in tmp_path.rglob("*.blk")) <= 100_000


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.blk"))


def parked_tokens(folder: Path) -> set[int]:
    """All token ids in the headers of the files."""
    return {token for file in files_of(folder) for token in (read_header(file) or (0, 0, []))[2]}


def test_what_a_deleted_chat_alone_needed_is_gone(tmp_path: Path) -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    shared = story(0, 300)
    visit(memory, branches, shared + story(1, 300), "a")
    visit(memory, branches, shared + story(2, 300), "b")
    settle(branches)
    both = len(files_of(tmp_path))
    branches.forget(["a"])
    assert 0 < len(files_of(tmp_path)) < both
    assert parked_tokens(tmp_path).isdisjoint(story(1, 300))
    # The block in which the two part held text of both, so "b" reads a little again.
    assert visit(memory, branches, shared + story(2, 300), "b") <= 300 + BLOCK_TOKENS
    settle(branches)
    branches.forget(["b"])
    assert files_of(tmp_path) == []
    assert not any(memory.held)
    assert not parked_tokens(tmp_path)


def test_a_deleted_chat_is_gone_from_disk_without_an_engine(tmp_path: Path) -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    shared = story(0, 300)
    visit(memory, branches, shared + story(1, 300), "a")
    visit(memory, branches, shared + story(2, 300), "b")
    settle(branches)
    forget_on_disk(tmp_path, ["a"])
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    assert parked_tokens(tmp_path).isdisjoint(story(1, 300))
    assert visit(memory, branches, shared + story(2, 300), "b") <= 300 + BLOCK_TOKENS
    settle(branches)
    forget_on_disk(tmp_path, ["b", "a"])
    assert files_of(tmp_path) == []


def test_a_chain_of_very_many_blocks(tmp_path: Path) -> None:
    store = parking(tmp_path)
    block = None
    for number in range(1500):
        block = store.add(block, 0 if block is None else 1, [number], b"x", "a")
    assert len(store.match(list(range(1500)))) == 1500
    store.forget(["a"])
    assert store.memory_used == 0


def test_short_branches_off_long_blocks_survive_the_end_of_others(tmp_path: Path) -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    trunk = story(0, 384)
    visit(memory, branches, trunk, "a")
    visit(memory, branches, trunk[:260] + story(1, 3), "b")
    settle(branches)
    branches.forget(["nobody"])
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    assert visit(memory, branches, trunk[:260] + story(1, 3), "b") == 1
    assert visit(memory, branches, trunk, "a") == 1


def test_what_other_weights_kept_of_a_deleted_chat_goes_too(tmp_path: Path) -> None:
    for who in ("one", "two"):
        branches = Branches(BookMemory(), parking(tmp_path, who=who), can_roll_back=True)
        branch = branches.take(story(1, 300), "a")
        assert branch is not None
        branches._memory.read(branch, story(1, 300))  # type: ignore[attr-defined] # the fake's
        branches.give_back(branch)
        settle(branches)
    branches.forget(["a"])
    assert files_of(tmp_path) == []


def test_a_chat_deleted_in_mid_reply_leaves_nothing(tmp_path: Path) -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    branch = branches.take(story(1, 300), "a")
    assert branch is not None
    memory.read(branch, story(1, 300))
    branches.forget(["a"])
    branches.give_back(branch)
    settle(branches)
    assert files_of(tmp_path) == []


def test_what_has_no_name_is_never_on_disk(tmp_path: Path) -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    visit(memory, branches, story(1, 300), "")
    settle(branches)
    assert files_of(tmp_path) == []


def test_other_weights_find_nothing_here(tmp_path: Path) -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    visit(memory, branches, story(1, 300))
    settle(branches)
    memory = BookMemory()
    other = Branches(memory, parking(tmp_path, who="other"), can_roll_back=True)
    assert visit(memory, other, story(1, 300)) == 300


def cut(data: bytes, chooser: random.Random) -> bytes:
    return data[: chooser.randrange(len(data))]


def flip(data: bytes, chooser: random.Random) -> bytes:
    changed = bytearray(data)
    changed[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
    return bytes(changed)


def grow(data: bytes, chooser: random.Random) -> bytes:
    return data + chooser.randbytes(chooser.randrange(1, 99))


def noise(data: bytes, chooser: random.Random) -> bytes:
    return chooser.randbytes(len(data))


@pytest.mark.parametrize("harm", [cut, flip, grow, noise])
def test_damaged_blocks_are_never_used(
    tmp_path: Path, harm: Callable[[bytes, random.Random], bytes]
) -> None:
    chooser = random.Random(9)
    paths = [story(0, 200) + story(n, 300) for n in range(1, 5)]
    for round_number in range(12):
        folder = tmp_path / str(round_number)
        memory = BookMemory()
        branches = Branches(memory, parking(folder), can_roll_back=True)
        for path in paths:
            visit(memory, branches, path)
        settle(branches)
        for file in chooser.sample(files_of(folder), 3):
            file.write_bytes(harm(file.read_bytes(), chooser))
        memory = BookMemory()
        branches = Branches(memory, parking(folder), can_roll_back=True)
        for path in paths:
            visit(memory, branches, path)  # it checks every state


def test_exchanged_and_foreign_blocks_are_never_used(tmp_path: Path) -> None:
    chooser = random.Random(3)
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path / "one"), can_roll_back=True)
    paths = [story(n, 300) for n in range(4)]
    for path in paths:
        visit(memory, branches, path)
    settle(branches)
    for _ in range(20):
        first, second = chooser.sample(files_of(tmp_path / "one"), 2)
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
    place = files_of(tmp_path / "one")[0].parent
    (place / ("ab" * 32 + ".blk")).write_bytes(files_of(tmp_path / "one")[0].read_bytes())
    (place / "nonsense.blk").write_bytes(b"GRVBLK1\n" + bytes(100))
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path / "one"), can_roll_back=True)
    for path in paths:
        visit(memory, branches, path)
    assert not (place / "nonsense.blk").exists()


def test_a_lost_index_drops_everything_rather_than_keep_what_nobody_can_erase(
    tmp_path: Path,
) -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path), can_roll_back=True)
    visit(memory, branches, story(1, 300))
    settle(branches)
    next(tmp_path.rglob("chats.json")).write_bytes(b"{broken")
    parking(tmp_path)
    assert files_of(tmp_path) == []


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    memory = BookMemory()
    branches = Branches(memory, parking(tmp_path / "cache"), can_roll_back=True)
    visit(memory, branches, story(1, 300))
    settle(branches)
    for file in (tmp_path / "cache").rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


def test_a_disk_that_fails_is_no_reason_not_to_write(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    memory = BookMemory()
    branches = Branches(memory, parking(blocked), can_roll_back=True)
    visit(memory, branches, story(1, 300))
    settle(branches)
    assert visit(memory, branches, story(1, 300)) == 1


def test_weights_that_cannot_roll_back_have_checkpoints(tmp_path: Path) -> None:
    memory = BookMemory(cuts=False)
    branches = Branches(memory, parking(tmp_path), can_roll_back=False)
    prompt = story(1, 400)
    assert visit(memory, branches, prompt) == 400
    assert visit(memory, branches, prompt) == 1
    assert visit(memory, branches, [*prompt, 7, 8, 9, 1, 2]) == 2
    assert visit(memory, branches, prompt[:200]) == 200
    settle(branches)
    memory = BookMemory(cuts=False)
    branches = Branches(memory, parking(tmp_path), can_roll_back=False)
    assert visit(memory, branches, prompt) == 1


@pytest.mark.parametrize("can_roll_back", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_random_operations_never_mix_anything_up(
    tmp_path: Path, seed: int, *, can_roll_back: bool
) -> None:
    chooser = random.Random(seed)
    memory = BookMemory(sequences=6, cuts=can_roll_back)
    cap = chooser.choice([BIG, 100_000])
    branches = Branches(memory, parking(tmp_path, cap), can_roll_back=can_roll_back)
    known: list[list[int]] = [story(0, 50)]
    busy: list[Branch] = []
    for _ in range(500):
        action = chooser.choice(("visit", "visit", "take", "give", "fork", "idle", "forget"))
        if action == "visit" and len(busy) < 3:
            path = chooser.choice(known)
            path = path[: chooser.randint(2, len(path))]
            if chooser.random() < 0.7:
                path = path + story(chooser.randrange(10**5), chooser.randint(1, 2 * BLOCK_TOKENS))
            known.append(path)
            visit(memory, branches, path, chooser.choice("abc"))
        elif action == "take" and len(busy) < 3:
            branch = branches.take(chooser.choice(known), chooser.choice("abc"))
            if branch is not None:
                memory.check(branch)
                memory.read(branch, story(chooser.randrange(99), 20))
                busy.append(branch)
        elif action == "fork" and busy:
            fork = branches.fork(chooser.choice(busy), "a")
            if fork is not None:
                memory.check(fork)
                busy.append(fork)
        elif action == "give" and busy:
            branches.give_back(busy.pop(chooser.randrange(len(busy))))
        elif action == "idle":
            for _ in range(chooser.randint(1, 20)):
                branches.idle_work()
        elif action == "forget" and chooser.random() < 0.2:
            branches.forget([chooser.choice("abc")])
        elif action == "forget" and chooser.random() < 0.2 and not busy:
            memory = BookMemory(sequences=6, cuts=can_roll_back)  # a restart
            branches = Branches(memory, parking(tmp_path, cap), can_roll_back=can_roll_back)
        for branch in busy:
            memory.check(branch)
