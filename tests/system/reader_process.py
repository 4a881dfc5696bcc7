"""A screen reader's eyes on one program: answers questions about its AT-SPI tree, line by line.

Runs under the system's Python, which has the bindings.  Reads a JSON object a line: ``pid``, and
``id`` for the visible control with that identifier, ``focus`` for the one with the focus (``but``
those with these roles), or neither for all that take the focus.  Answers each with a line: a list
of controls.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import gi  # type: ignore[import-not-found, unused-ignore]  # the system's Python has it

gi.require_version("Atspi", "2.0")
from gi.repository import Atspi  # type: ignore[import-not-found, unused-ignore]  # noqa: E402 - as above, and only after the version is chosen

DEEPEST = 40
MOST_CHILDREN = 300


def find_app(pid: int) -> Any:
    """The program's root, None until it has told the bus that it is there."""
    desktop = Atspi.get_desktop(0)
    desktop.set_cache_mask(Atspi.Cache.NONE)
    for index in range(desktop.get_child_count()):
        app = desktop.get_child_at_index(index)
        if app is not None and app.get_process_id() == pid:
            # What changes is told by events, and nobody here runs a loop to take them in.
            app.set_cache_mask(Atspi.Cache.NONE)
            return app
    return None


def facts(node: Any, states: Any) -> dict[str, Any]:
    """What a reader would say of a control, and where it is on the screen."""
    kind = Atspi.StateType
    area = Atspi.Component.get_extents(node, Atspi.CoordType.SCREEN)
    return {
        "role": node.get_role_name() or "",
        "name": node.get_name() or "",
        "description": node.get_description() or "",
        "id": node.get_accessible_id() or "",
        "focusable": states.contains(kind.FOCUSABLE),
        "focused": states.contains(kind.FOCUSED),
        "enabled": states.contains(kind.ENABLED),
        "checked": states.contains(kind.CHECKED),
        "area": [area.x, area.y, area.width, area.height],
    }


def walk(
    node: Any,
    wanted: Callable[[Any, Any], bool],
    found: list[dict[str, Any]],
    many: bool,
    depth: int = 0,
) -> bool:
    """Gather what is wanted; whether the search is over."""
    for index in range(min(node.get_child_count(), MOST_CHILDREN)):
        child = node.get_child_at_index(index)
        if child is None:
            continue
        states = child.get_state_set()
        if not states.contains(Atspi.StateType.SHOWING):
            continue
        if wanted(child, states):
            found.append(facts(child, states))
            if not many:
                return True
        if depth < DEEPEST and walk(child, wanted, found, many, depth + 1):
            return True
    return False


def question(asked: dict[str, Any]) -> Callable[[Any, Any], bool]:
    """Which control a line asks for."""
    kind = Atspi.StateType
    if "id" in asked:
        return lambda node, _states: node.get_accessible_id() == asked["id"]
    if "focus" in asked:
        # The tab of a bar that is open calls itself focused too, and so does a list's current item.
        but = asked["but"] or ("page tab", "page tab list")
        return lambda node, states: (
            states.contains(kind.FOCUSED) and node.get_role_name() not in but
        )
    return lambda _node, states: states.contains(kind.FOCUSABLE)


def main() -> None:
    """Answer until stdin ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        found: list[dict[str, Any]] = []
        try:
            app = find_app(asked["pid"])
            if app is not None:
                many = "id" not in asked and "focus" not in asked
                walk(app, question(asked), found, many)
        except gi.repository.GLib.Error as error:
            # Controls come and go while they are asked: the next question will do.
            print(error, file=sys.stderr)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
