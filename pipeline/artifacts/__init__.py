"""The files passed between stages: one module per format, with its paths, writer and reader."""
