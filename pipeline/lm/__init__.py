"""The language model itself: batching, model, schedule, training. Knows no DVC, no MLflow and no files."""
