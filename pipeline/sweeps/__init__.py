"""Sweeps: the space of settings, the trials, and their results."""
