"""What git knows about the project; nothing here requires git."""

import subprocess
from pathlib import Path

SECONDS_TO_ANSWER = 10  # git waits for ever in a network folder that is gone


def git(*arguments: str, folder: Path = Path()) -> str | None:
    """The output of git in a folder; None if it fails, takes too long or is not installed."""
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, check=False, timeout=SECONDS_TO_ANSWER
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if result.returncode else result.stdout.decode("utf-8", errors="replace")
