"""What git knows of the project, which can do without."""

import subprocess
from pathlib import Path

SECONDS_TO_ANSWER = 10  # in a folder on a network that is gone, git waits for ever


def git(*arguments: str, folder: Path = Path()) -> str | None:
    """What git says in a folder; None if it fails, takes too long or is not installed."""
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, check=False, timeout=SECONDS_TO_ANSWER
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if result.returncode else result.stdout.decode("utf-8", errors="replace")
