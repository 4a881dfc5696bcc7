"""The weights page's side of the downloads: preparing one, finding it again, the queue's order.

Main thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from desktop_app.errors import KnownError
from desktop_app.weights.downloads import Download
from desktop_app.weights.hub import Repository
from desktop_app.weights.hub_files import Quantisation
from desktop_app.weights.shelf import Entry

if TYPE_CHECKING:
    from desktop_app.ui.weights_store import WeightsStore
    from desktop_app.weights.room import WeightsRoom

MOVES: Final = ("up", "down", "top", "bottom")


class Queue:
    """See the module.  Belongs to one `WeightsStore`."""

    def __init__(self, store: WeightsStore) -> None:
        self._store = store
        self.asking: dict[str, KnownError | None] = {}
        """Downloads that are being prepared by `repository label`: None, or why it failed."""
        self._sorted_out: tuple[list[Entry], dict[str, list[Entry]]] = ([], {})

    # ---- getting ---------------------------------------------------------------------------------

    def get(self, repository: str, label: str, file: str = "") -> None:
        """Fetch one size of a repository; asks the hub for its files where they are not known.

        `file` is its name, where that is known: it decides between files of one label.
        """
        store, key = self._store, f"{repository} {label}"
        if key in self.asking and self.asking[key] is None:
            return
        known = store.repositories.get(repository)
        if isinstance(known, Repository):
            self._add(known, key, label, file)
            return
        self.asking[key] = None
        cancel = store.new_cancel()

        def done(found: Repository) -> None:
            store.repositories[repository] = found
            self._add(found, key, label, file)

        def failed(error: KnownError) -> None:
            self.asking[key] = error
            store.touch()

        store.with_room(
            lambda room: store.later(
                lambda: room.hub.repository(repository, cancel=cancel), done, failed
            )
        )
        store.touch()

    def _add(self, repository: Repository, key: str, label: str, file: str) -> None:
        assert self._store.room is not None
        try:
            named = [item for item in repository.quantisations if item.name == file]
            item = named[0] if named else repository.quantisation(label)
            self._store.room.downloads.add(repository, item)
        except KnownError as error:
            self.asking[key] = error
        else:
            self.asking.pop(key, None)
        self._store.touch()

    # ---- finding again -------------------------------------------------------------------------

    def of(self, repository: str, label: str, item: Quantisation | None = None) -> Download | None:
        """The unfinished download of one size, or of exactly this file."""
        for line in self._store.downloads:
            same = line.label == label if item is None else line.files == item.files
            if line.repository == repository and same and line.state != "done":
                return line
        return None

    def installed(
        self, repository: str, label: str, item: Quantisation | None = None
    ) -> Entry | None:
        """The file on this computer that came from one size, or from exactly this file."""
        entries = self._by_repository().get(repository, ())
        if item is not None and entries and self._store.room is not None:
            path = self._store.room.downloads.target(repository, item.files[0])
            return next((entry for entry in entries if entry.path == path), None)
        for entry in entries:
            if label == entry.quantisation or label.lower() in entry.path.name.lower():
                return entry
        return None

    def _by_repository(self) -> dict[str, list[Entry]]:
        """Files of Grove's own folder by ``owner/name``, sorted out once for each list."""
        room, entries = self._store.room, self._store.entries
        if room is not None and self._sorted_out[0] is not entries:
            found: dict[str, list[Entry]] = {}
            own = str(room.shelf.own_folder)
            for entry in entries:
                if str(entry.path).startswith(own):
                    parts = entry.path.parts[len(room.shelf.own_folder.parts) :]
                    found.setdefault("/".join(parts[:2]), []).append(entry)
            self._sorted_out = (entries, found)
        return self._sorted_out[1]

    # ---- the queue -------------------------------------------------------------------------------

    def waiting(self) -> list[int]:
        """The ids of what has not ended well, in the queue's order."""
        return [item.id for item in self._store.downloads if item.state != "done"]

    def act(self, verb: str, download_id: int) -> None:
        """ "pause", "resume", "cancel", one of MOVES, or "clear" on a line of the queue."""
        room = self._store.room
        if room is None:
            return
        queue = room.downloads
        try:
            if verb in MOVES:
                self._move(room, verb, download_id)
            elif verb == "clear":
                queue.clear_finished()
            else:
                {"pause": queue.pause, "resume": queue.resume, "cancel": queue.cancel}[verb](
                    download_id
                )
        except (KnownError, ValueError):
            pass  # the line has gone meanwhile: what was wanted is so
        self._store.downloads = queue.snapshot()
        self._store.touch()

    def _move(self, room: WeightsRoom, verb: str, download_id: int) -> None:
        """Among the unfinished ones: finished ones stay where they are, and are stepped over."""
        items = room.downloads.snapshot()
        ids = [item.id for item in items]
        waiting = [item.id for item in items if item.state != "done"]
        at, last = waiting.index(download_id), len(waiting) - 1
        to = {"up": at - 1, "down": at + 1, "top": 0, "bottom": last}[verb]
        to = max(0, min(to, last))
        if to != at:
            room.downloads.move(download_id, ids.index(waiting[to]))

    def go_on_after_offline(self) -> None:
        """What only the switch had stopped goes on now that it is off."""
        for item in self._store.downloads:
            if item.state == "failed" and item.error == "offline":
                self.act("resume", item.id)

    def unlocked(self, repository: str) -> None:
        """A token is right: what failed for want of it goes on."""
        for item in self._store.downloads:
            if item.repository == repository and item.state == "failed":
                self.act("resume", item.id)
        for key, refused in list(self.asking.items()):
            if key.startswith(f"{repository} ") and isinstance(refused, KnownError):
                self.get(*key.split(" ", 1))
