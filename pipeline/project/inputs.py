"""A stage's inputs when it started, compared with those when it ends."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pipeline.project.console import UserError, warn

Inputs = Mapping[str, object]  # everything that a result depends on, under the names that users know


class Watch:
    """Tells whether any of a stage's inputs has been edited since it started."""

    def __init__(self, stage: str, inputs: Callable[[], Inputs]) -> None:
        self._stage = stage
        self._inputs = inputs
        self._before = inputs()
        self._warned = False

    def edited(self) -> list[str]:
        try:
            now = self._inputs()
        except UserError:  # the input is no longer valid at all
            now = {}
        return [name for name, value in self._before.items() if now.get(name) != value]

    def warn_once(self) -> None:
        """Warn at the first edit."""
        if not self._warned and (edited := self.edited()):
            edits = " and ".join(edited)
            warn(f"{self._stage}: {edits} edited: this goes on as it was started; `dvc repro` runs the edit")
            self._warned = True


@contextmanager
def fixed_inputs(stage: str, inputs: Callable[[], Inputs]) -> Iterator[Watch]:
    """Raise UserError at the end if an input was edited in the meantime, so that DVC records nothing.

    DVC takes the digests of a stage's dependencies when the stage has ended, not when it starts (treeverse/dvc 11058):
    it would attribute the result to the edited ones.
    """
    watch = Watch(stage, inputs)
    yield watch
    if edited := watch.edited():
        raise UserError(
            f"{stage}: {' and '.join(edited)} edited while this ran, so its result is of what was there before: "
            "`dvc repro` runs it with the edit; undo the edit first to keep this result"
        )
