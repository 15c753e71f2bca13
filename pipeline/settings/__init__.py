"""`params.yaml` and recipes: what may stand there, what it means, and every mistake told at once."""
