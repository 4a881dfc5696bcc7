"""Grove: private, offline chat where a conversation is a tree you can edit."""
