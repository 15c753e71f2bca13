"""The project's own ground: its files and settings, what a person reads, and the processes that it starts."""
