"""`params.yaml` and recipes: what they may contain, what it means, and all mistakes reported at once."""
