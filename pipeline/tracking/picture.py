"""The picture of a training run's perplexities that MLflow shows."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.lm.record import EpochRecord
from pipeline.project.console import warn

PICTURE = "curve.png"


@contextmanager
def picture(history: Sequence[EpochRecord]) -> Iterator[list[Path]]:
    """The file, for the duration of the block; empty, with a warning, if drawing fails: the run is valid without it."""
    files: list[Path] = []
    with ExitStack() as stack:
        try:
            from pipeline.reporting.curves import curve  # matplotlib takes a second to import

            path = Path(stack.enter_context(TemporaryDirectory())) / PICTURE
            curve(history, path)
            files.append(path)
        except Exception as error:
            warn(f"MLflow gets no picture of this training run: {error}")
        yield files
