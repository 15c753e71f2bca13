"""Reading files in archives. Nothing is extracted, so no member's path is ever written to."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import PurePosixPath
from tempfile import TemporaryFile

MAX_BYTES = 2**30  # from one address, and in one unpacked archive: anything longer is not the corpus
CHUNK_BYTES = 2**16

Read = Callable[[int], bytes]  # returns up to that many bytes; empty at the end


class SourceError(Exception):
    """Why a source is skipped, in one line."""


class BoundedStream(io.RawIOBase):
    """A stream over a `read` function, limited to MAX_BYTES."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._num_bytes = 0

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """At most `size` bytes; empty at the end. Raises SourceError beyond the limit."""
        chunk = self._read(size)
        self._num_bytes += len(chunk)
        if self._num_bytes > MAX_BYTES:
            raise SourceError(f"more than {MAX_BYTES:,} bytes")
        return chunk


def is_archive(name: str) -> bool:
    return name.lower().endswith((".tgz", ".tar.gz", ".zip"))


def unpack(name: str, body: io.RawIOBase, wanted: Collection[str], on_member: Callable[[str, Read], None]) -> None:
    """Call `on_member` with each wanted path and a function that reads the first member whose path ends in it.

    name: of the archive; its extension gives the format
    wanted: paths; a name without a folder is looked for in a folder named data

    Raises SourceError if some are missing; a damaged archive raises various other errors.
    """
    missing = {_parts(path if "/" in path else f"data/{path}"): path for path in wanted}
    members = _zip_members(body) if name.lower().endswith(".zip") else _tar_members(body)
    for path, read in members:
        ending = next((ending for ending in missing if _parts(path)[-len(ending) :] == ending), None)
        if ending:
            on_member(missing.pop(ending), read)
        if not missing:
            return
    raise SourceError(f"the archive does not contain {', '.join('/'.join(ending) for ending in missing)}")


def _tar_members(body: io.RawIOBase) -> Iterator[tuple[str, Read]]:
    """The regular files, while the archive is streamed."""
    unzipped = BoundedStream(gzip.GzipFile(fileobj=body, mode="rb").read)
    with tarfile.open(fileobj=unzipped, mode="r|") as archive:
        for member in archive:
            if member.isreg() and not member.issparse():
                content = archive.extractfile(member)
                assert content  # always true of a regular file
                yield member.name, content.read


def _zip_members(body: io.RawIOBase) -> Iterator[tuple[str, Read]]:
    """The regular files, from a copy of the archive on disk, as the list of members is at its end."""
    with TemporaryFile() as copy:
        while chunk := body.read(CHUNK_BYTES):
            copy.write(chunk)
        with zipfile.ZipFile(copy) as archive:
            for member in archive.infolist():
                if not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16):
                    yield member.filename, BoundedStream(archive.open(member).read).read


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path).parts
