"""The files that stages hand on: one module a format, with its names, writer and reader."""
