"""Chats to a file: Grove's own JSON, which loses nothing, or Open-Assistant's trees.

Any thread but the one that resolves the library's futures; it waits for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from desktop_app.exchange import oasst
from desktop_app.exchange.files import write_atomically
from desktop_app.exchange.library import Chats, Dump, text_of

Form = Literal["grove", "oasst"]
FORMAT: Final = "grove"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Written:
    """What an export holds."""

    chats: int
    messages: int
    size_bytes: int


def write(
    library: Chats,
    path: Path,
    chat_ids: Sequence[int] | None = None,
    *,
    form: Form = "grove",
    trash: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Written:
    """Write these chats (None: all) to `path`; an older file there is replaced as a whole.

    ``"grove"`` is one JSON document ``{"format": "grove", "version": 1, "chats": […]}`` of dumps,
    oldest chat first; the same library always gives the same bytes.  ``"oasst"`` is JSON Lines in
    Open-Assistant's formats, packed when the name ends in ``.gz``.  What lies in the trash is left
    out unless `trash`.  Raises KnownError when the file cannot be written.
    """
    infos = library.chats().result()
    if trash:
        infos = [*infos, *library.chats(deleted=True).result()]
    by_id = {info.id: info for info in infos}
    wanted = list(by_id.values()) if chat_ids is None else [by_id[i] for i in chat_ids]
    if chat_ids is None:
        wanted.sort(key=lambda info: (info.created_at, info.uid))
    counted = {"messages": 0}

    def dumps() -> Iterator[Dump]:
        for n, info in enumerate(wanted):
            if progress is not None:
                progress(n / len(wanted))
            dump = library.export_chat(info.id, removed=trash).result()
            counted["messages"] += len(dump["messages"])
            # In an order that does not hang on this library's own ids.
            yield {**dump, "chosen": dict(sorted(dump["chosen"].items()))}

    chunks = _grove(dumps()) if form == "grove" else _oasst(dumps())
    size_bytes = write_atomically(path, chunks)
    return Written(len(wanted), counted["messages"], size_bytes)


def _grove(dumps: Iterator[Dump]) -> Iterator[str]:
    yield f'{{"format": "{FORMAT}", "version": {VERSION}, "chats": ['
    for n, dump in enumerate(dumps):
        yield ",\n" if n else "\n"
        yield json.dumps(dump, ensure_ascii=False)
    yield "\n]}\n"


def _oasst(dumps: Iterator[Dump]) -> Iterator[str]:
    for dump in dumps:
        for line in oasst.write(_out_chat(dump)):
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _out_chat(dump: Dump) -> oasst.OutChat:
    messages = [message for message in dump["messages"] if not message.get("deleted_at")]
    number = {message["uid"]: n for n, message in enumerate(messages)}
    children: dict[int | None, list[int]] = {}
    for n, message in enumerate(messages):
        children.setdefault(number.get(message["parent"] or ""), []).append(n)
    chat = dump["chat"]
    return oasst.OutChat(
        chat["uid"],
        chat["title"],
        chat["extra"],
        [
            oasst.OutMessage(
                message["uid"],
                message["role"],
                text_of(message),
                text_of(message, "reasoning"),
                message["author"],
                message["created_at"],
                message["marks"],
                message["extra"],
                children.get(n, ()),
            )
            for n, message in enumerate(messages)
        ],
        children.get(None, ()),
    )
