"""The corpus: its words, their ids, and how those lie on disk."""
