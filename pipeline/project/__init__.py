"""The project's foundations: its files, what it prints, the machine, and the processes that it starts."""
