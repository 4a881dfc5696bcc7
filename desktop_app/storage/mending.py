"""A database whose search index alone is damaged: everything else is copied, the index made anew.

The index holds most of the bytes and nothing that is not elsewhere, so most damage costs nothing.
"""

# ruff: noqa: S608 -- table names come from our own schema.

from __future__ import annotations

from pathlib import Path

import apsw

from desktop_app.storage import rows, schema, search

_BATCH = 500


def copy_without_index(damaged: apsw.Connection, target: apsw.Connection) -> None:
    """Fill an empty database with all that `damaged` holds; apsw.CorruptError where it cannot.

    Both have the newest schema.  Row by row through this process, because an attached database
    would need the key provider once more.
    """
    schema.migrate(target, 0)
    target.execute("BEGIN IMMEDIATE")
    for name in _tables(damaged):
        columns = [row[1] for row in damaged.execute(f"PRAGMA table_info({name})")]
        marks = ", ".join("?" * len(columns))
        target.execute(f"DELETE FROM {name}")
        target.executemany(
            f"INSERT INTO {name}({', '.join(columns)}) VALUES({marks})",
            damaged.execute(f"SELECT {', '.join(columns)} FROM {name}"),
        )
    ids = [row[0] for row in target.execute("SELECT id FROM message ORDER BY id")]
    for start in range(0, len(ids), _BATCH):
        for node_id, parts in rows.read_parts(target, ids[start : start + _BATCH]).items():
            search.index(target, node_id, parts)
    target.execute("COMMIT")


def _tables(db: apsw.Connection) -> list[str]:
    """Our tables and the counters of used ids; not the index and what lies under it."""
    found = db.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'search%'"
    ).fetchall()
    # sqlite_sequence last: filling the others writes to it.
    return sorted((str(row[0]) for row in found), key=lambda name: name == "sqlite_sequence")


def is_of_the_index(table: str) -> bool:
    """Whether a table belongs to the search index."""
    return table.startswith("search")


def leftovers(file: Path) -> list[Path]:
    """A half-made copy and its side files."""
    return [file.with_name(file.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
