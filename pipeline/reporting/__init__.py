"""Results side by side: figures, and the conclusions of the course report checked against our results."""
