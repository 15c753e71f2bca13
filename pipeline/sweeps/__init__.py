"""Sweeps: what to try, the trials that try it, and their results."""
