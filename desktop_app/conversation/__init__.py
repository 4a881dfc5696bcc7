"""The domain: a conversation as a tree, its edits and its undo.  No I/O, no Qt."""
