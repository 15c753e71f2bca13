"""The project's foundations: its files and settings, what it prints, and the processes it starts."""
