"""SQLite through apsw: open, migrate, commit, search, back up."""
