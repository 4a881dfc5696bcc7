"""`Conversation`: the only door to a chat.  Its verbs change the tree, the history and the disk.

Main thread only.  A verb applies its step to the tree at once and hands it to the store; when the
write fails, that step and every later one are taken back, visibly.  Streaming text is no step, and
neither is navigation (`set_head`, `choose_version`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

from desktop_app.conversation.edits import (
    Edit,
    Insert,
    KeepRevision,
    Move,
    Remove,
    Restore,
    SetHead,
    SetMarks,
    SetParts,
    SetState,
    Step,
    apply_all,
    disturbed,
    state_of,
)
from desktop_app.conversation.ledger import Ledger
from desktop_app.conversation.memory import MemoryStore
from desktop_app.conversation.node import (
    ChatInfo,
    Json,
    Node,
    Part,
    Parts,
    Revision,
    Role,
    State,
    new_uid,
    now_ms,
    text_parts,
    with_text,
)
from desktop_app.conversation.places import adopted, below_lifted, beside, place, spread
from desktop_app.conversation.store import Entry, Side, Store, StreamEnd
from desktop_app.conversation.tree import Streamed, Tree
from desktop_app.errors import KnownError


class Conversation:
    """One open chat.  See the module's docstring; `on_…` attributes are for its owner:

    - `on_stop_streams(ids)`: a step is about to touch replies that are being written; stop them
      and call `finish_stream` for each before returning (the document stops the rest itself).
    - `on_take_back(error)`: a write failed and the newest steps were taken back.
    - `on_store_error(error)`: a write that is no step failed; the text stays and is tried again.
    """

    def __init__(
        self,
        chat: ChatInfo,
        tree: Tree,
        store: Store,
        *,
        undo: Sequence[Entry] = (),
        redo: Sequence[Entry] = (),
        next_seq: int = 1,
        deeper: Collection[Side] = (),
    ) -> None:
        """Called by the store; others use `Conversation.in_memory` or the library."""
        self.tree = tree
        self.on_stop_streams: Callable[[tuple[int, ...]], None] | None = None
        self.on_take_back: Callable[[KnownError], None] | None = None
        self.on_store_error: Callable[[KnownError], None] | None = None
        self._store = store
        self._ledger = Ledger(
            chat, tree, store, self, undo=undo, redo=redo, next_seq=next_seq, deeper=deeper
        )
        self._do = self._ledger.do
        self._clock = 0
        self._streaming = {i for i in tree.ids() if tree.node(i).state is State.STREAMING}

    @classmethod
    def in_memory(cls, title: str = "") -> Conversation:
        """A conversation that is never written."""
        at = now_ms()
        chat = ChatInfo(1, new_uid(at), title, created_at=at, updated_at=at)
        return cls(chat, Tree(complete=True), MemoryStore())

    # ---- reading -----------------------------------------------------------------------------

    @property
    def chat(self) -> ChatInfo:
        """The chat's own facts, with the head of now."""
        return self._ledger.chat

    @property
    def head_id(self) -> int | None:
        """Where the active path ends; None in an empty chat."""
        return self.tree.head_id

    def path(self, head: int | None = None) -> list[int]:
        """The ids from the root to `head` (the active head when None)."""
        return self.tree.path(self.tree.head_id if head is None else head)

    @property
    def system_text(self) -> str:
        """The system prompt on top of the active path; empty when there is none."""
        root = self._system_id()
        return "" if root is None else self.tree.text(root)

    @property
    def streaming_ids(self) -> tuple[int, ...]:
        """Replies that are being written now."""
        self._streaming = {i for i in self._streaming if self._is_streaming(i)}
        return tuple(sorted(self._streaming))

    def is_stale(self, reply_id: int) -> bool:
        """Whether a message above was edited in place after this reply was written."""
        above = self.tree.path(reply_id)[:-1]
        born = self.tree.node(reply_id).created_at
        return any(self.tree.node(node_id).edited_at > born for node_id in above)

    def revisions(self, node_id: int) -> Future[list[Revision]]:
        """What stood in a message before, oldest first."""
        return self._store.read_revisions(node_id)

    def turns(self, node_id: int) -> Future[list[dict[str, Json]]]:
        """How a reply was made (weights, sampling, seed, tokens, times), oldest first."""
        return self._store.read_turns(node_id)

    def need(self, node_ids: Iterable[int]) -> Future[None]:
        """Load the parts of these messages; `tree.parts` is quick once it has resolved."""
        return self._ledger.need(node_ids)

    # ---- the verbs ---------------------------------------------------------------------------

    def send(
        self, text: str, *, author: str = "", attachments: Sequence[Part] = (), drafts: int = 1
    ) -> tuple[int, ...]:
        """A prompt below the head and the reply to it, or several drafts of it, STREAMING.

        One step.  Returns the ids, the prompt's first.  `author` names the weights that will write.
        """
        self.settle()
        parts = (*attachments, *text_parts(text))
        return self._ask("send", self.head_id, parts, author, drafts)

    def save_and_ask_again(self, node_id: int, text: str, *, author: str = "") -> tuple[int, int]:
        """Another version of a prompt, with a reply below it, as one step.  Returns both ids."""
        self.settle()
        node = self._expect(node_id, Role.USER)
        parts = with_text(self.tree.parts(node_id), text)
        user_id, reply_id = self._ask("save-and-ask-again", node.parent_id, parts, author)
        return user_id, reply_id

    def ask_again(self, node_id: int, *, author: str = "", drafts: int = 1) -> tuple[int, ...]:
        """New replies: below a prompt, beside a reply.  The head moves to the first of them."""
        self.settle()
        node = self.tree.node(node_id)
        parent_id = node.parent_id if node.role is Role.ASSISTANT else node_id
        at = self._now()
        inserts = self._replies(parent_id, author, at, drafts)
        ids = tuple(insert.node.id for insert in inserts)
        self._do("ask-again", (*inserts, self._go(parent_id, ids[:1], fork=True)), at)
        self._streaming.update(ids)
        return ids

    def edit_in_place(self, node_id: int, words: str | Parts) -> None:
        """Change a message where it stands; what stood there is kept as a revision."""
        self._edit_in_place("edit", node_id, words)

    def edit_as_version(self, node_id: int, text: str) -> int:
        """The changed message as a new sibling, where the head goes.  Returns its id."""
        self.settle()
        node = self.tree.node(node_id)
        at = self._now()
        parts = with_text(self.tree.parts(node_id), text)
        new = replace(self._new(node.role, node.parent_id, at), author=node.author)
        self._do("edit-version", (Insert(new, parts), self._go(node.parent_id, (new.id,))), at)
        return new.id

    def continue_reply(self, node_id: int) -> None:
        """Let a reply go on from its end: STREAMING again, with a revision of what stood there."""
        self.settle()
        node = self._expect(node_id, Role.ASSISTANT)
        if node.state is State.STREAMING:
            return
        at = self._now()
        parts = self.tree.parts(node_id)
        # Replies below read the shorter text: for them this is an edit.
        edited_at = at if self.tree.children(node_id) else node.edited_at
        going = replace(state_of(node), state=State.STREAMING, finish="", at_ms=at)
        edits: list[Edit] = [
            KeepRevision(node_id, node.revisions + 1, parts, at),
            SetParts(node_id, parts, edited_at, at),
            replace(going, failure="", failure_text=""),
        ]
        if node_id not in self.path():
            edits.append(self._go(self.tree.leaf_below(node_id)))
        self._do("continue", edits, at)
        self._streaming.add(node_id)

    def insert(
        self,
        parent_id: int | None,
        role: Role,
        text: str,
        position: int | None = None,
        *,
        adopt: bool = False,
    ) -> int:
        """A message by hand, as child number `position` (None = last) of `parent_id`.

        `adopt` hangs the parent's children below the new message: an insertion between.  The head
        moves only when the new message stands right below it.  Returns the id.
        """
        self.settle()
        at = self._now()
        here = self._below(parent_id)
        sort_key, moves = place(self.tree, parent_id, None if adopt else position, at)
        new = replace(self._new(role, parent_id, at), position=sort_key)
        edits: list[Edit] = [*moves, Insert(new, text_parts(text))]
        if adopt and here:
            edits += adopted(self.tree, parent_id, new.id, at)
        elif parent_id == self.head_id:
            edits.append(self._go(parent_id, (new.id,)))
        elif here:
            edits.append(self._stay(parent_id))
        self._do("insert", edits, at)
        return new.id

    def copy_in(self, messages: Iterable[tuple[Node, Parts]]) -> tuple[int, ...]:
        """Copies of messages, also of another chat, as a chain below the head: one step."""
        self.settle()
        at = self._now()
        inserts: list[Insert] = []
        above = self.head_id
        for node, parts in messages:
            state = State.DONE if node.state is State.DONE else State.STOPPED
            new = replace(self._new(node.role, above, at), author=node.author, state=state)
            inserts.append(Insert(new, parts))
            above, at = new.id, self._now()
        ids = tuple(insert.node.id for insert in inserts)
        if ids:
            self._do("copy", (*inserts, self._go(self.head_id, ids)), at)
        return ids

    def remove(self, node_id: int, *, keep_below: bool = False) -> None:
        """Take a message and all below it out of the tree (into the trash).

        With `keep_below` only this message goes, and its children take its place.
        """
        self.settle()
        at = self._now()
        parent_id = self.tree.parent(node_id)
        children = self.tree.children(node_id)
        removal = new_uid(at)
        if keep_below and children:
            self._stop((node_id,))
            edits: list[Edit] = [*below_lifted(self.tree, node_id, at)]
            head = self.head_id
            if head == node_id:
                head = self.tree.leaf_below(node_id)
            chosen = ((parent_id, self.tree.chosen_child(node_id)),)
            keep = self.tree.chosen_child(parent_id) == node_id
            edits.append(SetHead(head, chosen if keep else ()))
            edits.append(Remove((node_id,), removal, at))
        else:
            ids = self.tree.subtree(node_id)
            self._stop(ids)
            edits = [Remove(tuple(ids), removal, at)]
            if self.head_id in set(ids):
                edits.insert(0, self._go(beside(self.tree, node_id)))
        self._do("remove", edits, at)

    def keep_only_path(self, head: int | None = None) -> int:
        """Remove everything that is not on the path to `head`.  Returns how many went."""
        self.settle()
        keep = self.path(head)
        kept = set(keep)
        ids = tuple(i for i in sorted(self.tree.ids()) if i not in kept)
        if not ids or not keep:
            return 0
        at = self._now()
        self._stop(ids)
        target = self.head_id if self.head_id in kept else keep[-1]
        self._do("keep-path", (self._go(target), Remove(ids, new_uid(at), at)), at)
        return len(ids)

    def move(self, node_id: int, new_parent_id: int | None, position: int | None = None) -> None:
        """Hang a message and all below it under another parent, as child number `position`."""
        self.settle()
        tree = self.tree
        if new_parent_id is not None and node_id in tree.path(new_parent_id):
            raise KnownError(
                "move-into-itself",
                "A message cannot be moved below itself. Choose a place outside its own branch.",
            )
        at = self._now()
        others = [child for child in self._below(new_parent_id) if child != node_id]
        sort_key, moves = place(tree, new_parent_id, position, at, moving=node_id)
        edits: list[Edit] = [*moves, Move(node_id, new_parent_id, sort_key, at)]
        if node_id in self.path():
            chosen = {**dict(self._go(new_parent_id).chosen), new_parent_id: node_id}
            edits.append(SetHead(self.head_id, tuple(chosen.items())))
        elif others:
            edits.append(self._stay(new_parent_id))
        self._do("move", edits, at)

    def restore(self, node_ids: Iterable[int], removal: str) -> None:
        """Bring messages back from the trash, those that one removal took."""
        self.settle()
        gone = set(self.tree.removed_ids())
        ids = tuple(node_id for node_id in node_ids if node_id in gone)
        if ids:
            at = self._now()
            self._do("restore", (Restore(ids, removal, at),), at)

    def mark(self, node_id: int, **marks: Json) -> None:
        """Set marks (rating, rank, labels …) of a message; the value None takes one away."""
        self.settle()
        node = self.tree.node(node_id)
        new = {key: value for key, value in {**node.marks, **marks}.items() if value is not None}
        if new != dict(node.marks):
            at = self._now()
            self._do("mark", (SetMarks(node_id, node.starred, new, at),), at)

    def star(self, node_id: int, starred: bool) -> None:
        """Star a message, or take the star away."""
        self.settle()
        node = self.tree.node(node_id)
        if node.starred != starred:
            at = self._now()
            self._do("star", (SetMarks(node_id, starred, node.marks, at),), at)

    def set_system(self, text: str) -> None:
        """Set the system prompt on top of the active path; the empty text takes it away."""
        self.settle()
        root = self._system_id()
        if root is not None and text:
            self._edit_in_place("system", root, text)
        elif root is not None:
            self.remove(root, keep_below=True)
        elif text:
            at = self._now()
            new = self._new(Role.SYSTEM, None, at)
            edits: list[Edit] = [Insert(new, text_parts(text))]
            if self.tree.children(None):
                edits += adopted(self.tree, None, new.id, at)
            else:
                edits.append(SetHead(new.id))
            self._do("system", edits, at)

    # ---- navigation and the chat's own facts: no steps -------------------------------------------

    def set_head(self, node_id: int | None) -> None:
        """Let the active path end here; remembered on disk, with the choice at each fork."""
        self.settle()
        edit = self._go(node_id)
        if edit.head_id != self.head_id or edit.chosen:
            self._ledger.navigate(edit, self._now())

    def choose_version(self, node_id: int) -> None:
        """Show this version: the head goes to the leaf that was last used below it."""
        self.set_head(self.tree.leaf_below(node_id))

    def set_title(self, text: str, *, undoable: bool = True) -> None:
        """Name the chat; an undoable renaming is on the library's stack, not on this one."""
        self._update_chat(replace(self.chat, title=text), undoable)

    def set_defaults(self, *, weights: str | None = None, preset: str | None = None) -> None:
        """Remember the weights and preset this chat uses; not undoable."""
        chat = self.chat
        weights = chat.weights if weights is None else weights
        preset = chat.preset if preset is None else preset
        self._update_chat(replace(chat, weights=weights, preset=preset), undoable=False)

    # ---- a reply while it is written ---------------------------------------------------------

    def stream_text(self, node_id: int, parts: Parts) -> None:
        """All parts of a reply so far; on disk within half a second.  Ignored when it is gone."""
        if not self._is_streaming(node_id):
            return
        self.tree.tell_before(Streamed(node_id))
        self.tree.apply_parts(node_id, parts)
        self.tree.tell_after(Streamed(node_id))
        self._store.write_stream(self.chat.id, node_id, parts)

    def finish_stream(
        self,
        node_id: int,
        state: State,
        parts: Parts | None = None,
        *,
        finish: str = "",
        turn: Mapping[str, Json] | None = None,
        failure: KnownError | None = None,
        author: str | None = None,
    ) -> None:
        """A reply has ended.  `parts` None keeps what was streamed.  Ignored when it is gone.

        `turn` is kept as the reply's provenance: any JSON; see `storage.dump` for known keys.
        """
        if not self._is_streaming(node_id):
            return
        at = self._now()
        node = self.tree.node(node_id)
        words = self.tree.parts(node_id) if parts is None else parts
        ended = SetState(
            node_id,
            state,
            finish,
            failure.code if failure else "",
            failure.sentence if failure else "",
            node.author if author is None else author,
            node.turns + (turn is not None),
            at,
        )
        apply_all(self.tree, (SetParts(node_id, words, node.edited_at, at), ended))
        self._streaming.discard(node_id)
        end = StreamEnd(self.chat.id, self.tree.node(node_id), words, turn)
        self._ledger.note_write(self._store.end_stream(end))

    # ---- undo and redo -----------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return self._ledger.history.top(Side.UNDO) is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo."""
        return self._ledger.history.top(Side.REDO) is not None

    @property
    def undo_name(self) -> str:
        """The name of the step that `undo` would undo; empty when there is none."""
        entry = self._ledger.history.top(Side.UNDO)
        return entry.step.name if entry else ""

    @property
    def redo_name(self) -> str:
        """The name of the step that `redo` would redo; empty when there is none."""
        entry = self._ledger.history.top(Side.REDO)
        return entry.step.name if entry else ""

    @property
    def undo_at_ms(self) -> int:
        """When the step that `undo` would undo was done; 0 without one."""
        entry = self._ledger.history.top(Side.UNDO)
        return entry.step.at_ms if entry else 0

    def undo(self) -> Step | None:
        """Undo the newest step; replies that it touches are stopped first.  None = nothing left."""
        return self._back(Side.UNDO)

    def redo(self) -> Step | None:
        """Redo what was undone last, with the same ids.  None = nothing left."""
        return self._back(Side.REDO)

    def saved(self) -> Future[None]:
        """Resolves when everything so far is on disk; fails with the KnownError that stopped it."""
        return self._ledger.last_write

    def settle(self) -> None:
        """Take in what other threads left for this one: failed writes, loaded parts.

        The store posts this to the main thread, and every verb begins with it.
        """
        self._ledger.settle()

    # ---- called by the library ------------------------------------------------------------------

    def chat_changed(self, chat: ChatInfo) -> None:
        """The library changed the chat's own facts (any thread)."""
        self._ledger.tell_main(lambda: self._ledger.set_chat(chat))

    def store_failed(self, error: KnownError) -> None:
        """Text that grows could not be written yet (any thread)."""
        self._ledger.report(error)

    def forget_removed(self) -> set[int]:
        """The trash is being emptied: let go of removed messages and of steps that need them.

        Returns the ids; messages of steps that are not on disk yet stay.
        """
        return self._ledger.forget_removed()

    # ---- inside ------------------------------------------------------------------------------

    def _now(self) -> int:
        # Strictly rising, so that "written before that edit" is never a tie.
        self._clock = max(self._clock + 1, now_ms())
        return self._clock

    def _is_streaming(self, node_id: int) -> bool:
        return node_id in self.tree and self.tree.node(node_id).state is State.STREAMING

    def _system_id(self) -> int | None:
        path = self.path()
        if path and self.tree.node(path[0]).role is Role.SYSTEM:
            return path[0]
        return None

    def _below(self, parent_id: int | None) -> tuple[int, ...]:
        """The children; KeyError for a parent that is not in the tree."""
        if parent_id is not None:
            self.tree.node(parent_id)
        return self.tree.children(parent_id)

    def _expect(self, node_id: int, role: Role) -> Node:
        node = self.tree.node(node_id)
        if node.role is not role:
            raise ValueError(f"message {node_id} is {node.role}, not {role}")
        return node

    def _new(self, role: Role, parent_id: int | None, at: int) -> Node:
        position, _ = place(self.tree, parent_id, None, at)
        new_id = self._store.lease_message_id()
        return Node(new_id, new_uid(at), parent_id, position, role, created_at=at, updated_at=at)

    def _replies(
        self, parent_id: int | None, author: str, at: int, drafts: int
    ) -> tuple[Insert, ...]:
        made = []
        for n in range(drafts):
            node = self._new(Role.ASSISTANT, parent_id, at)
            node = replace(node, state=State.STREAMING, author=author)
            made.append(Insert(replace(node, position=node.position + spread(n))))
        return tuple(made)

    def _ask(
        self, name: str, parent_id: int | None, parts: Parts, author: str, drafts: int = 1
    ) -> tuple[int, ...]:
        at = self._now()
        user = self._new(Role.USER, parent_id, at)
        replies = self._replies(user.id, author, self._now(), drafts)
        ids = tuple(insert.node.id for insert in replies)
        go = self._go(parent_id, (user.id, ids[0]), fork=drafts > 1)
        self._do(name, (Insert(user, parts), *replies, go), at)
        self._streaming.update(ids)
        return user.id, *ids

    def _edit_in_place(self, name: str, node_id: int, words: str | Parts) -> None:
        self.settle()
        self._stop((node_id,))
        node = self.tree.node(node_id)
        old = self.tree.parts(node_id)
        new = with_text(old, words) if isinstance(words, str) else tuple(words)
        if new == old:
            return
        at = self._now()
        keep = KeepRevision(node_id, node.revisions + 1, old, at)
        self._do(name, (keep, SetParts(node_id, new, at, at)), at)

    def _go(self, node_id: int | None, new: Sequence[int] = (), *, fork: bool = False) -> SetHead:
        """The head to `node_id`, or to the end of a chain of `new` messages below it.

        With `fork` the last of the chain has siblings that are as new.
        """
        path = self.tree.path(node_id)
        chosen: list[tuple[int | None, int | None]] = [
            (above, child)
            for above, child in zip((None, *path), path, strict=False)
            if self.tree.chosen_child(above) != child
        ]
        for above, child in zip((node_id, *new), new, strict=False):
            if (above == node_id and self.tree.children(above)) or (fork and child == new[-1]):
                chosen.append((above, child))
        return SetHead(new[-1] if new else node_id, tuple(chosen))

    def _stay(self, parent_id: int | None) -> SetHead:
        """Remember what is shown below a parent that gets another child."""
        return SetHead(self.head_id, ((parent_id, self.tree.chosen_child(parent_id)),))

    def _stop(self, node_ids: Iterable[int]) -> None:
        streaming = tuple(sorted(set(self.streaming_ids) & set(node_ids)))
        if streaming and self.on_stop_streams is not None:
            self.on_stop_streams(streaming)
        for node_id in streaming:
            self.finish_stream(node_id, State.STOPPED, finish="cancelled")

    def _back(self, side: Side) -> Step | None:
        self.settle()
        entry = self._ledger.history.top(side)
        if entry is None:
            return None
        self._stop(disturbed(entry.step.edits))
        return self._ledger.back(side, entry, self._now())

    def _update_chat(self, chat: ChatInfo, undoable: bool) -> None:
        if chat != self.chat:
            self._ledger.set_chat(chat)
            self._ledger.note_write(self._store.update_chat(chat, undoable=undoable))
