"""Random interleavings of ask, stop, switch, delete and kill over five chats.

    python -m tests.system.interleavings [--n N] [--seed S] [--json]

A real library, a real session and the real engine child with tiny random weights.  Each of the N
rounds does two to six of these at random moments, without waiting for one another: ask in a chat
(a new prompt, or again), stop a reply, switch (the chat is closed and another opened), delete a
chat (another takes its place), SIGKILL to the engine.  Then everything is let come to its end.

Nothing may be lost: each prompt and each reply stands in its chat, in memory, and in the library
when it is opened anew.  Nothing may be crossed: every request holds prompts of its own chat only,
and every reply is read again by an empty context, token by token, behind the tokens of its own
prompt; each must have been the first choice there, but for EPSILON (see `branch_cache`).  Nothing
may be left running: no reply, no process, no thread.  The exit status is 1 on any miss.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from desktop_app.cli.loop import MainLoop
from desktop_app.conversation import Conversation, Role, State
from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine, Job, Listener
from desktop_app.inference.protocol import Event, Finished, GenerateRequest, WeightsSpec
from desktop_app.paths import Profile
from desktop_app.session import Session
from desktop_app.settings import Settings
from desktop_app.storage import Library
from tests.fakes import tiny_gguf
from tests.system.branch_cache import EPSILON

CHATS = 5
ACTS = ("ask", "ask", "ask", "again", "stop", "switch", "delete", "kill")
WEIGHTS = (4, 4, 4, 2, 4, 3, 1, 1)
PATIENCE_S = 60.0


@dataclass
class Told:
    """What a run found."""

    seed: int
    rounds: int = 0
    asked: int = 0
    stopped: int = 0
    switched: int = 0
    deleted: int = 0
    kills: int = 0
    done: int = 0
    failed: int = 0
    tokens_checked: int = 0
    lost: int = 0
    crossed: int = 0
    left: int = 0
    seconds: float = 0.0

    @property
    def is_fine(self) -> bool:
        """Whether nothing was lost, crossed or left."""
        return not (self.lost or self.crossed or self.left)


class Watched(Engine):
    """An engine that remembers what it was asked and what it answered."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.answers: list[tuple[GenerateRequest, Finished]] = []

    def generate(
        self, request: GenerateRequest, listener: Listener | None = None
    ) -> Job[tuple[Finished, ...]]:
        """As the engine, with the answer kept."""

        def hear(event: Event) -> None:
            if isinstance(event, Finished):
                self.answers.append((request, event))
            if listener is not None:
                listener(event)

        return super().generate(request, hear)


class Stage:
    """Everything that runs, and what must be there at the end."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.told = Told(seed)
        self.weights = tiny_gguf.write(folder / "Tiny.gguf")
        self.profile = Profile(folder / "profile")
        self.profile.create()
        settings = Settings.load(self.profile)
        settings.weights_path = str(self.weights)
        settings.presets = {"Short": {"temperature": 0.0, "max_tokens": 40}}
        settings.preset = "Short"
        self.loop = MainLoop()
        self.library = Library.open(self.profile, post=self.loop.post)
        self.engine = Watched(cache_dir=self.profile.cache)
        self.session = Session(
            self.library,
            self.engine,
            settings,
            self.loop.post,
            profile=self.profile,
            later=self.loop.later,
        )
        self.turns = 0
        self.said: dict[int, list[str]] = {}
        self.chats: list[int] = []
        for _ in range(CHATS):
            self._begin_chat()

    # --- acts ----------------------------------------------------------------------------------

    def _begin_chat(self) -> None:
        chat = self.loop.wait(self.session.new_chat())
        self.chats.append(chat.chat.id)
        self.said[chat.chat.id] = []
        self._ask(chat)

    def _chat(self, chat_id: int) -> Conversation:
        return self.loop.wait(self.session.open_chat(chat_id))

    def _ask(self, chat: Conversation) -> None:
        chat_id = chat.chat.id
        text = f"chat{chat_id}x asks {len(self.said[chat_id])}: {self.rng.randrange(10**6)}"
        if self.session.writing(chat_id):
            return
        self.session.send(chat, text)
        self.said[chat_id].append(text)
        self.told.asked += 1

    def act(self) -> None:
        """One random act."""
        name = self.rng.choices(ACTS, WEIGHTS)[0]
        chat = self._chat(self.rng.choice(self.chats))
        replies = [i for i in chat.tree.ids() if chat.tree.node(i).role is Role.ASSISTANT]
        if name == "ask":
            self._ask(chat)
        elif name == "again" and replies:
            self.session.ask_again(chat, self.rng.choice(replies), self.rng.randint(1, 2))
            self.told.asked += 1
        elif name == "stop":
            writing = self.session.writing()
            if writing:
                self.session.stop(self.rng.choice(writing))
                self.told.stopped += 1
        elif name == "switch":
            self.session.close_chat(chat.chat.id)
            self._chat(self.rng.choice(self.chats))
            self.told.switched += 1
        elif name == "delete":
            self._delete(chat)
        elif name == "kill":
            self._kill()

    def _delete(self, chat: Conversation) -> None:
        chat_id = chat.chat.id
        self.loop.wait(self.session.delete_chats((chat_id,)))
        self.chats.remove(chat_id)
        self.told.lost += bool(chat.streaming_ids)
        self.session.close_chat(chat_id)
        self.told.deleted += 1
        self._begin_chat()

    def _kill(self) -> None:
        pid = self.engine.child_pid
        if pid is not None and psutil.pid_exists(pid):
            psutil.Process(pid).kill()
            self.told.kills += 1

    def pause(self, longest_s: float) -> None:
        """Let events in for a random moment."""
        before = self.turns
        self.loop.later(self.rng.uniform(0, longest_s), self._count)
        self.loop.run_until(lambda: self.turns > before)

    def _count(self) -> None:
        self.turns += 1

    def round(self) -> None:
        """Some acts over one another, then quiet."""
        for _ in range(self.rng.randint(2, 6)):
            self.act()
            self.pause(self.rng.choice((0.0, 0.005, 0.05)))
        end = time.monotonic() + PATIENCE_S
        self.loop.run_until(lambda: not self.session.writing() or time.monotonic() > end)
        self.told.rounds += 1
        self.told.left += len(self.session.writing())
        for chat_id in self.chats:
            chat = self.session.conversation(chat_id)
            if chat is not None:
                self.told.left += len(chat.streaming_ids)

    # --- the end -------------------------------------------------------------------------------

    def close(self) -> dict[int, dict[int, str]]:
        """Take everything down; the texts of all chats as they were in memory."""
        texts: dict[int, dict[int, str]] = {}
        for chat_id in self.said:
            chat = self._chat(chat_id)
            self.loop.wait(chat.need(chat.tree.ids()))
            self.loop.wait(chat.saved())
            texts[chat_id] = {i: chat.tree.text(i) for i in chat.tree.ids()}
            for i in chat.tree.ids():
                state = chat.tree.node(i).state
                self.told.failed += state is State.FAILED
                self.told.done += chat.tree.node(i).role is Role.ASSISTANT and state is State.DONE
        child = self.engine.child_pid
        self.session.close()
        self.library.close()
        self.told.left += child is not None and psutil.pid_exists(child)
        return texts


def look_into_library(stage: Stage, texts: dict[int, dict[int, str]]) -> None:
    """What the library holds when it is opened anew is what stood in memory."""
    told = stage.told
    library = Library.open(stage.profile)
    try:
        told.left += library.recovered
        for chat_id, said in stage.said.items():
            chat = library.load(chat_id).result()
            ids = chat.tree.ids()
            chat.need(ids).result()
            chat.settle()
            told.lost += {i: chat.tree.text(i) for i in ids} != texts[chat_id]
            prompts = [chat.tree.text(i) for i in ids if chat.tree.node(i).role is Role.USER]
            told.lost += sorted(prompts) != sorted(said)
    finally:
        library.close()


def look_for_crossings(stage: Stage) -> None:
    """Requests hold their own chat's prompts, and replies are what these prompts lead to."""
    from desktop_app.inference import llama
    from desktop_app.inference.context import Batch, Context

    told = stage.told
    engine = Engine()
    prompts: list[tuple[int, ...]] = []
    try:
        engine.load(WeightsSpec(str(stage.weights), threads=1)).done.result(PATIENCE_S)
        for request, answer in stage.engine.answers:
            marks = {m.text.partition(" ")[0] for m in request.messages if m.role == "user"}
            told.crossed += len(marks) != 1
            rendered = engine.render(request.messages, request.template).done.result(PATIENCE_S)
            prompts.append(() if answer.left_out else rendered.tokens)
    finally:
        engine.close()
    llama.start(lambda _line: None)
    context = Context(
        llama.Weights(str(stage.weights), gpu_layers=0),
        length=2048,
        sequences=1,
        threads=1,
        kv_type="f16",
        batch=512,
        offload=False,
    )
    batch = Batch(512)
    for prompt, (_request, answer) in zip(prompts, stage.engine.answers, strict=True):
        if not prompt or not answer.tokens:
            continue
        context.clear()
        for first in range(0, len(prompt), 512):
            batch.clear()
            index = batch.add(prompt[first : first + 512], first, 0, output=True)
            assert context.decode(batch) == "done"
        wrong = False
        for place, token in enumerate(answer.tokens):
            logits = context.logits(index)
            wrong = wrong or logits[token] < max(logits) - 2 * EPSILON
            batch.clear()
            index = batch.add([token], len(prompt) + place, 0, output=True)
            assert context.decode(batch) == "done"
            told.tokens_checked += 1
        told.crossed += wrong


def run(seed: int, count: int) -> Told:
    """`count` rounds; what was found."""
    started = time.monotonic()
    threads = set(threading.enumerate())
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), seed)
        try:
            while stage.told.rounds < count:
                stage.round()
        except KnownError:
            stage.session.close()
            stage.library.close()
            raise
        texts = stage.close()
        look_into_library(stage, texts)
        look_for_crossings(stage)
    stage.told.left += len([t for t in threading.enumerate() if t not in threads and t.is_alive()])
    stage.told.left += len(psutil.Process().children(recursive=True))
    stage.told.seconds = round(time.monotonic() - started, 1)
    return stage.told


def main() -> int:
    """Print what was found; 1 on any miss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    told = run(options.seed, options.n)
    facts = asdict(told)
    print(json.dumps(facts) if options.json else ", ".join(f"{k} {v}" for k, v in facts.items()))
    return 0 if told.is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
