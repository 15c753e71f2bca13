"""Results side by side: figures, and the published conclusions checked against our results."""
