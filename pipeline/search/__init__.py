"""Sweeps: what to try, the trials that try it, and what came of them."""
