"""The files passed between stages: one module per format, with its names, writer and reader."""
