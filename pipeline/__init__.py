"""Recurrent language models on Penn Treebank: one module a DVC stage, and what the stages share."""
