"""Where the process starts: the engine child, the template process, or a command.

The two helper processes are looked for before anything else is imported, so that they start in
milliseconds and never load the window's or the database's code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from desktop_app.paths import Profile

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")


def main() -> int:
    """Run what the arguments ask for and return the exit status."""
    if sys.argv[1:2] == ["--engine"]:
        from desktop_app.inference.host import main as run_engine

        return run_engine()
    if sys.argv[1:2] == ["--render-template"]:
        from desktop_app.inference.render_process import main as run_renderer

        return run_renderer()
    from desktop_app import cli

    if cli.names_no_command(sys.argv[1:]):
        window = _window()
        if window is not None:
            return cli.with_profile(sys.argv[1:], window)
    return cli.main()


def _window() -> Callable[[Profile], int] | None:
    """What opens the window; None where there is none (then Grove talks in the terminal)."""
    if sys.platform == "linux" and not any(map(os.environ.get, _DISPLAYS)):
        return None  # Qt would abort the process
    from desktop_app import quick_start

    try:
        quick_start.begin()
        from desktop_app.app import main as open_window
    except ImportError as error:
        quick_start.end()
        print(f"The window cannot be opened ({error}).", file=sys.stderr)
        return None
    return open_window


if __name__ == "__main__":
    sys.exit(main())
