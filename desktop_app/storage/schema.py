"""The tables, as numbered migrations.  Append only: a released migration never changes again.

`user_version` counts the migrations that a file has seen.  A backup is made before any of them runs
on a database that already holds something.
"""

from __future__ import annotations

from typing import Final

import apsw

APPLICATION_ID: Final = 0x47726F76
"""`Grov` in ASCII, in the header of every Grove database (SQLite file format, offset 68)."""

_V1: Final = """
CREATE TABLE chat(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  uid TEXT NOT NULL UNIQUE,
  title TEXT NOT NULL,
  head_id INTEGER,            -- where the next view begins; not a foreign key: loading is tolerant
  weights TEXT NOT NULL,
  preset TEXT NOT NULL,
  pinned INTEGER NOT NULL,
  created_at INTEGER NOT NULL, -- all times: ms since 1970 UTC
  updated_at INTEGER NOT NULL,
  deleted_at INTEGER NOT NULL, -- 0 = not in the trash
  extra TEXT NOT NULL          -- JSON: fields of imports that we do not know
) STRICT;
CREATE TABLE message(
  id INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice, so a redo restores the same ids
  uid TEXT NOT NULL UNIQUE,
  chat_id INTEGER NOT NULL REFERENCES chat(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  parent_id INTEGER REFERENCES message(id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
  position INTEGER NOT NULL,   -- sort key among siblings
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  author TEXT NOT NULL,
  finish TEXT NOT NULL,
  failure TEXT NOT NULL,
  failure_text TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  edited_at INTEGER NOT NULL,
  starred INTEGER NOT NULL,
  revisions INTEGER NOT NULL,
  turns INTEGER NOT NULL,      -- how many rows of turn count; later ones belong to an undone step
  marks TEXT NOT NULL,
  extra TEXT NOT NULL,
  deleted_at INTEGER,          -- NULL = in the tree
  removal TEXT                 -- which act took it away, so that it restores exactly these rows
) STRICT;
CREATE INDEX message_chat ON message(chat_id);
CREATE INDEX message_parent ON message(parent_id);
CREATE INDEX message_removal ON message(removal) WHERE removal IS NOT NULL;
CREATE INDEX message_streaming ON message(id) WHERE state = 'streaming';
CREATE TABLE blob(
  hash TEXT PRIMARY KEY,       -- SHA-256 in hex; the bytes lie in a file of that name
  size_bytes INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE part(
  message_id INTEGER NOT NULL REFERENCES message(id) ON DELETE CASCADE
    DEFERRABLE INITIALLY DEFERRED,
  ordinal INTEGER NOT NULL,
  kind TEXT NOT NULL,
  text TEXT NOT NULL,
  blob_hash TEXT,
  meta TEXT NOT NULL,
  PRIMARY KEY(message_id, ordinal)
) STRICT;
CREATE INDEX part_blob ON part(blob_hash) WHERE blob_hash IS NOT NULL;
CREATE TABLE revision(
  message_id INTEGER NOT NULL REFERENCES message(id) ON DELETE CASCADE
    DEFERRABLE INITIALLY DEFERRED,
  n INTEGER NOT NULL,
  parts TEXT NOT NULL,         -- JSON list of parts
  at_ms INTEGER NOT NULL,
  PRIMARY KEY(message_id, n)
) STRICT;
CREATE TABLE turn(
  message_id INTEGER NOT NULL REFERENCES message(id) ON DELETE CASCADE
    DEFERRABLE INITIALLY DEFERRED,
  n INTEGER NOT NULL,
  engine TEXT, weights TEXT, weights_hash TEXT, quantisation TEXT, template_hash TEXT,
  seed INTEGER, threads INTEGER,
  tokens_cached INTEGER, tokens_read INTEGER, tokens_written INTEGER,
  sampler TEXT, ancestors TEXT, times TEXT, -- JSON
  extra TEXT NOT NULL,         -- JSON: everything else the engine told
  PRIMARY KEY(message_id, n)
) STRICT;
CREATE TABLE choice(
  chat_id INTEGER NOT NULL REFERENCES chat(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  parent_id INTEGER NOT NULL,  -- 0 = the roots
  child_id INTEGER NOT NULL,
  PRIMARY KEY(chat_id, parent_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE undo_entry(
  scope INTEGER NOT NULL,      -- the chat, or 0 for the library's own steps
  side TEXT NOT NULL,          -- undo or redo
  seq INTEGER NOT NULL,        -- the highest is the top of the stack
  name TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  edits TEXT NOT NULL,         -- JSON: what to apply
  PRIMARY KEY(scope, side, seq)
) STRICT;
CREATE TABLE ui_state(
  chat_id INTEGER NOT NULL,    -- 0 = the app
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY(chat_id, key)
) STRICT, WITHOUT ROWID;
-- Folded text (see search.fold) by message id.  Trigrams find any part of a word in any script.
CREATE VIRTUAL TABLE search USING fts5(text, tokenize = 'trigram case_sensitive 1');
INSERT INTO search(search, rank) VALUES('secure-delete', 1);
"""

MIGRATIONS: Final[tuple[str, ...]] = (_V1,)
VERSION: Final = len(MIGRATIONS)


def migrate(db: apsw.Connection, start: int) -> None:
    """Run what is missing from version `start` on, each in its own transaction."""
    for number, script in enumerate(MIGRATIONS[start:], start + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(script)
            db.pragma("application_id", APPLICATION_ID)
            db.pragma("user_version", number)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
