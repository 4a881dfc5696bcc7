"""Training: batches of similar length, two optimisers, checkpoints, and the loss curve on file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from encoding import Examples
from network import Network, Shape
from torch import Tensor

TOPIC_WEIGHT = 0.3
# Positions seen in training reach this far, so that long inputs meet no unknown angle.
REACH = 8192


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast, by steps alone: the same seed gives the same weights.

    The rate rises over `warmup` steps, stays, and falls in a line to zero over the last `cooldown`
    steps; so a run may be made longer or shorter until its rate begins to fall, with the same
    outcome as if it had been started so.
    """

    seed: int = 1
    steps: int = 5000
    batch_tokens: int = 3840
    # Share of a new step in the averaged weights, once that many steps are done.
    averaging: float = 0.006
    rate: float = 2.5e-3
    warmup: int = 50
    cooldown: int = 1500
    bfloat16: bool = True


def batches(examples: Examples, budget: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of conversation numbers: alike in length, at most budget padded tokens."""
    lengths = np.diff(examples.starts)
    rng = np.random.default_rng(seed)
    ready: list[list[int]] = []
    while True:
        order = rng.permutation(len(lengths))
        for part in np.array_split(order, max(1, len(order) // 4000)):
            batch: list[int] = []
            for number in part[np.argsort(lengths[part], kind="stable")]:
                if batch and (len(batch) + 1) * int(lengths[number]) > budget:
                    ready.append(batch)
                    batch = []
                batch.append(int(number))
            if batch:
                ready.append(batch)
            if len(ready) > 150:
                for index in rng.permutation(len(ready)):
                    yield ready[index]
                ready = []


def tensors(examples: Examples, batch: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, loss weights and topic labels of a batch, padded at the right."""
    spans = [(int(examples.starts[n]), int(examples.starts[n + 1])) for n in batch]
    longest = max(end - start for start, end in spans)
    tokens = np.zeros((len(batch), longest), np.int64)
    weights = np.zeros((len(batch), longest), np.float32)
    labels = np.full((len(batch), longest), -1, np.int64)
    for row, (start, end) in enumerate(spans):
        tokens[row, : end - start] = examples.tokens[start:end]
        weights[row, : end - start] = examples.weights[start:end]
        labels[row, : end - start] = examples.labels[start:end]
    return torch.from_numpy(tokens), torch.from_numpy(weights), torch.from_numpy(labels)


def positions(length: int, rng: np.random.Generator) -> Tensor:
    """0, 1, 2 …, now and then with one wide gap, as if a long text stood there."""
    found = torch.arange(length)
    if rng.random() < 0.06 and length > 8 and length < REACH:
        gap = int(np.exp(rng.uniform(np.log(16), np.log(REACH - length))))
        found[int(rng.integers(1, length // 2)) :] += gap
    return found


def losses(net: Network, tokens: Tensor, weights: Tensor, labels: Tensor, where: Tensor,
           bfloat16: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What to learn from (tokens and topics), mean answer loss to report, and the topic loss."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        hidden = net(tokens[:, :-1], where)
        target, weight, label = tokens[:, 1:], weights[:, 1:], labels[:, :-1]
        chosen = weight > 0
        scores = net.logits(hidden[chosen])
        named = label >= 0
        topics = net.topic(hidden[named])
    each = nnf.cross_entropy(scores.float(), target[chosen], reduction="none")
    scale = weight[chosen]
    answers = scale > 0.5
    topic_loss = nnf.cross_entropy(topics.float(), label[named])
    # A batch of a few long texts holds few answers and must not weigh as much as a full one.
    usual = 0.4 * tokens.numel()
    share = min(1.0, float(scale.sum()) / usual)
    learned = (each * scale).sum() / max(float(scale.sum()), usual)
    return learned + share * TOPIC_WEIGHT * topic_loss, each[answers].mean(), topic_loss


class Trainer:
    """Holds what a checkpoint holds; run() goes on from wherever that is.

    Each batch is read in two halves by two threads, each on one core with a twin of the network
    that shares its weights, and the gradients are added in a fixed order. On a machine with other
    work this waits for the slower core once a step, not at each of hundreds of operations, and the
    outcome does not depend on how many cores there are.
    """

    def __init__(self, shape: Shape, topics: int, plan: Plan, folder: Path) -> None:
        torch.manual_seed(plan.seed)
        torch.set_num_threads(1)
        self.plan, self.shape, self.folder = plan, shape, folder
        self.net = Network(shape, topics)
        self.twin = Network(shape, topics)
        for p, q in zip(self.net.parameters(), self.twin.parameters(), strict=True):
            q.data = p.data
        matrices = [
            p for n, p in self.net.named_parameters() if n.startswith("blk") and p.ndim == 2
        ]
        known = {id(p) for p in matrices}
        others = [p for p in self.net.parameters() if id(p) not in known]
        self.optimisers: list[torch.optim.Optimizer] = [
            *(
                torch.optim.Muon(
                    half, lr=plan.rate, weight_decay=0.05, momentum=0.95,
                    adjust_lr_fn="match_rms_adamw",
                )
                for half in (matrices[0::2], matrices[1::2])
            ),
            torch.optim.AdamW(others, lr=plan.rate, weight_decay=0.01, betas=(0.9, 0.97)),
        ]  # fmt: skip
        self.average = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        self.step = 0
        self.elapsed_s = 0.0
        self.curve: list[dict[str, float]] = []

    def save(self) -> None:
        """Write the checkpoint and the loss curve, each in one move."""
        state = {
            "net": self.net.state_dict(), "average": self.average,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "step": self.step, "elapsed_s": self.elapsed_s, "curve": self.curve,
            "shape": asdict(self.shape),
        }  # fmt: skip
        part = self.folder / "checkpoint.part"
        torch.save(state, part)
        part.replace(self.folder / "checkpoint.pt")
        lines = "".join(json.dumps(point) + "\n" for point in self.curve)
        (self.folder / "loss.jsonl").write_text(lines, encoding="utf-8")

    def resume(self) -> bool:
        """Take up the folder's checkpoint if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.elapsed_s, self.curve = state["step"], state["elapsed_s"], state["curve"]
        return True

    def _set_rate(self) -> None:
        plan = self.plan
        rising = (self.step + 1) / plan.warmup
        falling = (plan.steps - self.step) / plan.cooldown
        factor = min(1.0, rising, falling)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * factor

    def _take_average(self) -> None:
        """Move the averaged weights towards the present ones; what is shipped is the average."""
        share = max(self.plan.averaging, 1 / self.step)
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                self.average[name].lerp_(p, share)

    def _read(
        self, net: Network, examples: Examples, half: list[int], whole: int
    ) -> tuple[np.ndarray, int]:
        """Gradients of half a batch of so many; its losses times its share, and its tokens."""
        tokens, weights, labels = tensors(examples, half)
        # Drawn from the step's number, so that a run taken up again draws the same.
        rng = np.random.default_rng((self.plan.seed, self.step, int(net is self.twin)))
        where = positions(tokens.shape[1] - 1, rng)
        learned, answer, topic = losses(net, tokens, weights, labels, where, self.plan.bfloat16)
        share = len(half) / whole
        (share * learned).backward()
        means = np.array((learned.item(), answer.item(), topic.item()))
        return share * means, tokens.numel()

    def _update(self, pool: ThreadPoolExecutor) -> None:
        """Add up both halves' gradients and take one step with them."""
        for p, q in zip(self.net.parameters(), self.twin.parameters(), strict=True):
            if p.grad is not None and q.grad is not None:
                p.grad.add_(q.grad)
            q.grad = None
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for stepped in [pool.submit(optimiser.step) for optimiser in self.optimisers]:
            stepped.result()
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)

    def run(self, examples: Examples, save_every_s: float = 240.0) -> None:
        """Train to the end of the plan."""
        with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            self._run(examples, pool, save_every_s)

    def _run(self, examples: Examples, pool: ThreadPoolExecutor, save_every_s: float) -> None:
        source = batches(examples, self.plan.batch_tokens, self.plan.seed)
        for _ in range(self.step):
            next(source)
        last = saved = time.monotonic()
        sums, seen = np.zeros(3), 0
        while self.step < self.plan.steps:
            self._set_rate()
            batch = next(source)
            halves = [half for half in (batch[0::2], batch[1::2]) if half]
            nets = (self.net, self.twin)
            done = list(pool.map(self._read, nets, repeat(examples), halves, repeat(len(batch))))
            self._update(pool)
            self.step += 1
            self._take_average()
            sums += sum(means for means, _ in done)
            seen += sum(count for _, count in done)
            now = time.monotonic()
            self.elapsed_s += now - last
            last = now
            if self.step % 25 == 0:
                self._report(sums / 25, seen)
                sums, seen = np.zeros(3), 0
            if now - saved > save_every_s:
                self.save()
                saved = now
        self.save()

    def _report(self, means: np.ndarray, seen: int) -> None:
        before = self.curve[-1]["elapsed_s"] if self.curve else 0.0
        point = {
            "step": self.step, "elapsed_s": round(self.elapsed_s, 1),
            "loss": round(float(means[0]), 4), "answer_loss": round(float(means[1]), 4),
            "topic_loss": round(float(means[2]), 4),
            "tokens_per_s": round(seen / max(self.elapsed_s - before, 1e-6)),
        }  # fmt: skip
        self.curve.append(point)
        print(json.dumps(point), flush=True)
