"""What is known of single files on the hub: headers read by ranges, and the context to judge by.

Main thread only; a file's header is asked for when somebody opens its row, never before.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from desktop_app.errors import KnownError
from desktop_app.weights.downloads import Download
from desktop_app.weights.fit import Fit, Plan, predict
from desktop_app.weights.gguf import Header
from desktop_app.weights.hub import Hub, Repository
from desktop_app.weights.hub_files import Quantisation

if TYPE_CHECKING:
    from desktop_app.ui.weights_store import WeightsStore

Key = tuple[str, str]
"""A repository's name, and a file's: two files of one repository may have one quantisation."""
CONTEXTS: Final = (2048, 4096, 8192, 16384, 32768, 65536, 131072)


def key_of(files: Repository, item: Quantisation) -> Key:
    """What `FileDetails` calls a file."""
    return (files.id, item.name)


class FileDetails:
    """See the module.  Belongs to one `WeightsStore`."""

    def __init__(self, store: WeightsStore) -> None:
        self._store = store
        self.open: set[Key] = set()
        """Files whose row is open."""
        self.headers: dict[Key, Header | KnownError | None] = {}
        """None while it is asked for."""
        self.contexts: dict[Key, int] = {}
        """Context lengths in tokens that were chosen; 0 and missing: automatic."""

    def toggle(self, files: Repository, item: Quantisation) -> None:
        """Open or close a file's row; its header is read the first time."""
        key = key_of(files, item)
        if key in self.open:
            self.open.discard(key)
        else:
            self.open.add(key)
            if not isinstance(self.headers.get(key), Header):
                self.ask(files, item)
        self._store.touch()

    def ask(self, files: Repository, item: Quantisation) -> None:
        """Read the header from the hub, unless the switch forbids it."""
        key = key_of(files, item)
        if self._store.offline or item.is_incomplete:
            self.headers.pop(key, None)
            return
        self.headers[key] = None
        cancel = self._store.new_cancel()

        def done(header: Header) -> None:
            self.headers[key] = header
            self._store.forget_fit(key)
            self._store.touch()

        def failed(error: KnownError) -> None:
            self.headers[key] = error
            self._store.touch()

        self._store.with_room(
            lambda room: self._store.later(
                lambda: _read(room.hub, files, item, cancel), done, failed
            )
        )
        self._store.touch()

    def choose_context(self, key: Key, tokens: int) -> None:
        """Judge this file by a context length; 0: as the engine would choose."""
        self.contexts[key] = tokens
        self._store.forget_fit(key)
        self._store.touch()

    def context_of(self, item: Download) -> int:
        """What was chosen for the file of a download; 0 for nothing."""
        files = self._store.repositories.get(item.repository)
        if not isinstance(files, Repository):
            return 0
        same = (found for found in files.quantisations if found.files == item.files)
        return next((self.contexts.get(key_of(files, found), 0) for found in same), 0)

    def contexts_of(self, key: Key, trained: int) -> list[int]:
        """The lengths to choose from, up to what the weights were trained for."""
        header = self.headers.get(key)
        longest = header.context_length if isinstance(header, Header) else trained
        return [length for length in CONTEXTS if length <= (longest or 8192)]

    def fit(self, files: Repository, item: Quantisation) -> Fit | None:
        """How the file would run: by its header where that was read, else by its size."""
        store, key = self._store, key_of(files, item)
        header, context = self.headers.get(key), self.contexts.get(key, 0)
        if not isinstance(header, Header):
            return store.fit(item.size_bytes, item.label, files.context_length, context)
        if store.machine is None or store.room is None:
            return None
        known = store.fits.get(key)
        if known is None:
            plan = Plan(context_length=context)
            known = store.fits[key] = predict(header, store.machine, store.room.speeds, plan)
        return known


def _read(hub: Hub, files: Repository, item: Quantisation, cancel: threading.Event) -> Header:
    """The header of a file, with the tensors of all its parts.  Worker thread."""
    first = hub.header(files, item.files[0], cancel=cancel)
    if len(item.files) == 1:
        return first
    parts = [first, *(hub.header(files, part, cancel=cancel) for part in item.files[1:])]
    return replace(
        first,
        tensors=tuple(tensor for part in parts for tensor in part.tensors),
        tensor_bytes=sum(part.tensor_bytes for part in parts),
        parameter_count=sum(part.parameter_count for part in parts),
        file_bytes=item.size_bytes,
    )
