"""Training runs in MLflow: a view of the files in `results/`, for watching and comparing."""
