"""From a conversation to what the transcript shows: one `RowView` for each message of the path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PySide6.QtCore import QDate, QDateTime, QLocale

from desktop_app.conversation import Conversation, Node, Role, State
from desktop_app.conversation.tree import Tree
from desktop_app.ui.row_view import Elsewhere, RowAction, RowState, RowView
from desktop_app.ui.words import tr

_STATES = {
    State.DONE: RowState.DONE,
    State.STREAMING: RowState.WRITING,
    State.STOPPED: RowState.STOPPED,
    State.INTERRUPTED: RowState.INTERRUPTED,
    State.FAILED: RowState.FAILED,
}

SMALLER_CONTEXT = "smaller-context"
OTHER_WEIGHTS = "other-weights"
RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Live:
    """What the engine is doing for a reply: waiting, loading, reading or writing.

    `done` and `total` count tokens of the prompt, `kept` those from the cache, `seconds` since the
    reading began.
    """

    state: RowState = RowState.WRITING
    fraction: float = 0.0
    done: int = 0
    total: int = 0
    kept: int = 0
    seconds: float = 0.0


def rows_of(
    conversation: Conversation,
    live: Mapping[int, Live],
    *,
    path: Sequence[int] | None = None,
) -> list[RowView]:
    """The rows of the active path, or of `path`.  Every part of it should be loaded already."""
    tree = conversation.tree
    below = counts_below(tree)
    today = QDateTime.currentDateTime()
    rows = []
    newest_edit = 0
    for node_id in conversation.path() if path is None else path:
        node = tree.node(node_id)
        stale = node.role is Role.ASSISTANT and newest_edit > node.created_at
        rows.append(_row(tree, node, live.get(node_id), below, stale, today))
        newest_edit = max(newest_edit, node.edited_at)
    return rows


def row_of(conversation: Conversation, node_id: int, live: Live | None) -> RowView:
    """One row, for a change that touches only this message."""
    tree = conversation.tree
    below = {node: tree.descendants_count(node) for node in tree.siblings(node_id)}
    stale = tree.node(node_id).role is Role.ASSISTANT and conversation.is_stale(node_id)
    now = QDateTime.currentDateTime()
    return _row(tree, tree.node(node_id), live, below, stale, now)


def counts_below(tree: Tree) -> dict[int, int]:
    """How many messages stand below each message, in one walk over the tree."""
    counts: dict[int, int] = {}
    todo = [(root, False) for root in tree.children(None)]
    while todo:
        node_id, counted = todo.pop()
        if counted:
            counts[node_id] = sum(counts.get(child, 0) + 1 for child in tree.children(node_id))
        elif node_id not in counts:
            counts[node_id] = 0
            todo.append((node_id, True))
            todo += [(child, False) for child in tree.children(node_id) if child not in counts]
    return counts


def _row(
    tree: Tree,
    node: Node,
    live: Live | None,
    below: Mapping[int, int],
    stale: bool,
    now: QDateTime,
) -> RowView:
    siblings = tree.siblings(node.id)
    alone = len(siblings) < 2
    version = 1 if alone or node.id not in siblings else siblings.index(node.id) + 1
    time = time_text(node.created_at, now)
    is_reply = node.role is Role.ASSISTANT
    row = RowView(
        message_id=node.id,
        role=node.role.value,
        author=_author(node),
        time=time,
        time_tip=full_time(node.created_at),
        text=tree.text(node.id),
        reasoning=tree.reasoning(node.id) if is_reply else "",
        state=_STATES[node.state],
        version=version,
        versions=len(siblings),
        version_tip=f"{_author(node)} · {time}" if is_reply else time,
        stale=stale,
        starred=node.starred,
        edited=bool(node.edited_at),
        below=below.get(node.id, 0),
        elsewhere=()
        if alone
        else tuple(
            Elsewhere(number, below[sibling])
            for number, sibling in enumerate(siblings, 1)
            if sibling != node.id and below.get(sibling)
        ),
        can_ask_again=node.role in (Role.USER, Role.ASSISTANT),
        can_continue=is_reply and node.state is not State.STREAMING,
    )
    if node.state is State.FAILED:
        return _failed(row, node)
    return _live(row, live) if node.state is State.STREAMING else row


def _author(node: Node) -> str:
    return node.author or (tr("chat.reply") if node.role is Role.ASSISTANT else "")


def _live(row: RowView, live: Live | None) -> RowView:
    if live is None:
        return row
    if live.state is RowState.LOADING:
        detail = tr("state.loading_weights")
        return replace(row, state=RowState.LOADING, progress=live.fraction, detail=detail)
    if live.state is RowState.READING:
        share = live.done / live.total if live.total else 0.0
        detail = tr("state.reading_detail", percent=round(share * 100), total=live.total)
        fresh = live.done - live.kept
        if fresh > 0 and live.seconds > 1.5 and live.done < live.total:
            left_s = max(1, round(live.seconds / fresh * (live.total - live.done)))
            detail += tr("state.time_left", seconds=left_s)
        return replace(row, state=RowState.READING, progress=share, detail=detail)
    detail = ""
    if live.total and live.total - live.kept <= 1:
        detail = tr("state.instant", kept=live.kept)
    elif live.total:
        key = "state.read_kept" if live.kept else "state.read"
        detail = tr(key, read=live.total - live.kept, kept=live.kept)
    return replace(row, state=RowState.WRITING, detail=detail)


def _failed(row: RowView, node: Node) -> RowView:
    """The cause in few words, the sentence, and what to do next."""
    code = node.failure
    kind = failure_kind(code)
    actions = [RowAction(RETRY, tr("failure.try_again"), main=True)]
    if kind in ("memory", "context"):
        actions.append(RowAction(SMALLER_CONTEXT, tr("failure.smaller_context")))
    if kind in ("memory", "weights"):
        actions.append(RowAction(OTHER_WEIGHTS, tr("failure.other_weights")))
    return replace(
        row,
        error=node.failure_text,
        error_badge=tr(f"failure.badge_{kind}"),
        error_detail=code,
        actions=tuple(actions),
    )


def failure_kind(code: str) -> str:
    """What a failure's code is about: memory, context, weights, engine, template or other."""
    for kind, marks in (
        ("memory", ("memory", "oom")),
        ("context", ("context", "overflow", "too-long")),
        ("template", ("template", "prompt")),
        ("weights", ("weights", "gguf")),
        ("engine", ("engine",)),
    ):
        if any(mark in code for mark in marks):
            return kind
    return "other"


def time_text(at_ms: int, now: QDateTime) -> str:
    """The hour today; the day and the hour before."""
    return _time_text(at_ms // 60_000, now.date().toJulianDay(), QLocale().name())


@lru_cache(maxsize=20_000)
def _time_text(at_minute: int, today: int, _locale: str) -> str:
    """Cached: a long chat is shown again after each step."""
    at = QDateTime.fromMSecsSinceEpoch(at_minute * 60_000)
    now = QDate.fromJulianDay(today)
    locale = QLocale()
    hour = locale.toString(at.time(), QLocale.FormatType.ShortFormat)
    if at.date() == now:
        return hour
    if at.date().year() == now.year():
        return f"{locale.toString(at.date(), tr('state.day_format'))}, {hour}"
    return f"{locale.toString(at.date(), QLocale.FormatType.ShortFormat)}, {hour}"


def full_time(at_ms: int) -> str:
    """Day and time in full, for tooltips."""
    return _full_time(at_ms // 1000, QLocale().name())


@lru_cache(maxsize=20_000)
def _full_time(at_s: int, _locale: str) -> str:
    at = QDateTime.fromSecsSinceEpoch(at_s)
    return QLocale().toString(at, QLocale.FormatType.LongFormat)
