"""The corpus: where it comes from, its words, and their ids on disk."""
