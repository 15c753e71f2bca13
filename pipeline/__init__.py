"""Recurrent language models on Penn Treebank: one module per command, and the packages that the commands share."""
