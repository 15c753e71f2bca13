"""Locks between processes, which the system releases when their process ends."""

import errno
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock

from pipeline.project.console import UserError

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lock(FileLock):
    """A lock that one process holds at a time. The file alone, without the system's lock on it, means nothing.

    timeout: seconds until `acquire` raises filelock's Timeout; negative: it waits for ever
    """

    def __init__(self, path: Path, timeout: float = -1) -> None:
        super().__init__(path, timeout=timeout, fallback_to_soft=False)

    def acquire(self, *arguments: Any, **options: Any) -> AcquireReturnProxy:
        """Raises UserError where the file system has no locks."""
        try:
            return super().acquire(*arguments, **options)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            remedy = "keep the project on a file system that has them, or mount this one with them"
            raise UserError(f"{self.lock_file} cannot be locked ({error.strerror}): {remedy}") from None
