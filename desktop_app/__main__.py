"""Where the process starts: the engine child, the template process, or a command.

The two helper processes are looked for before anything else is imported, so that they start in
milliseconds and never load the window's or the database's code.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run what the arguments ask for and return the exit status."""
    if sys.argv[1:2] == ["--engine"]:
        from desktop_app.inference.host import main as run_engine

        return run_engine()
    if sys.argv[1:2] == ["--render-template"]:
        from desktop_app.inference.render_process import main as run_renderer

        return run_renderer()
    from desktop_app.cli import main as run_command

    return run_command()


if __name__ == "__main__":
    sys.exit(main())
