"""The weights room put together: what the window and the command line both use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .catalogue import Catalogue
from .connections import Connections
from .downloads import Downloads
from .fit import MB, Device, Machine, SpeedBook
from .hub import Hub
from .measuring import measure_memory_speed
from .places import System
from .shelf import Shelf
from .tokens import Tokens


class WeightsRoom:
    """Opens nothing and connects to nothing until asked.  Close it before the program ends.

    `remember_downloads` false keeps the queue out of the profile: for commands that run beside
    a window.
    """

    def __init__(
        self,
        profile: Path,
        *,
        hub_url: str = "",
        offline: bool = False,
        remember_downloads: bool = True,
        system: System | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self.profile = profile
        self.connections = Connections(profile / "connections.jsonl", offline=offline)
        self.hub = Hub(self.connections, endpoint=hub_url, tokens=tokens)
        self.shelf = Shelf(profile, system=system)
        state_file = profile / "downloads.json" if remember_downloads else None
        self.downloads = Downloads(self.hub, self.shelf, state_file)
        self.speeds = SpeedBook.load(profile / "speed.json")
        self.catalogue = Catalogue.load()
        self._measured = False
        self._told_free = 0

    def machine(self, devices: tuple[Device, ...] = ()) -> Machine:
        """This computer, with the free space where weights are kept.

        Free memory that moves by less than 2 % of all memory and 150 MB is told as before:
        other programs breathe, and judgements should not.
        """
        found = Machine.here(self.shelf.own_folder, devices)
        if abs(found.free_bytes - self._told_free) > found.total_bytes // 50 + 150 * MB:
            self._told_free = found.free_bytes
        return replace(found, free_bytes=self._told_free)

    def measure_speed_once(self) -> None:
        """A quarter of a second of memory copying, at the first three looks on this computer and
        until real weights have run.  Worker thread."""
        self.speeds.read()
        if self._measured or self.speeds.has_runs or self.speeds.knows_memory:
            return
        self._measured = True
        self.speeds.record_memory_speed(measure_memory_speed())

    def close(self) -> None:
        self.downloads.close()
        self.connections.close()
