"""The picture of a training run's perplexities that goes with it to MLflow."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.lm.record import EpochRecord
from pipeline.project.console import warn

PICTURE = "curve.png"


@contextmanager
def picture(history: Sequence[EpochRecord]) -> Iterator[list[Path]]:
    """The file, for as long as the block runs; none, with a warning, if it cannot be drawn: the run is as good."""
    from pipeline.reporting.curves import curve  # matplotlib takes a second to import

    with TemporaryDirectory() as folder:
        path = Path(folder) / PICTURE
        try:
            curve(history, path)
        except Exception as error:
            warn(f"MLflow gets no picture of this training run: {error}")
        yield [path] if path.exists() else []
