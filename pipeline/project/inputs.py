"""A stage's inputs when it started, compared with those when it ends."""

from collections.abc import Callable, Mapping

from pipeline.project.console import UserError, warn

Inputs = Mapping[str, object]  # everything that a result depends on, under the names that users know


class FixedInputs:
    """A `with` block that raises UserError at its end if an input was edited since this was created.

    Create it before anything is read. DVC takes the digests of a stage's dependencies when the stage ends, not when it
    starts (treeverse/dvc 11058): it would attribute the result to the edited ones. Raises whatever `inputs` raises.
    """

    def __init__(self, stage: str, inputs: Callable[[], Inputs]) -> None:
        self._stage = stage
        self._inputs = inputs
        self._before = inputs()
        self._warned = False

    def __enter__(self) -> "FixedInputs":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (edited := self._edited()):
            raise UserError(
                f"{self._stage}: {edited} edited while this ran, so its result is that of the old inputs: "
                "`dvc repro` runs it with the edit; undo the edit first to keep this result"
            )

    def warn_once(self) -> None:
        """Warn at the first edit."""
        if not self._warned and (edited := self._edited()):
            warn(f"{self._stage}: {edited} edited: this run continues as it was started; `dvc repro` runs the edit")
            self._warned = True

    def _edited(self) -> str:
        try:
            now = self._inputs()
        except (UserError, SyntaxError, OSError) as error:  # in the middle of an edit: it cannot be read
            return f"an input ({error})"
        return " and ".join(name for name, value in self._before.items() if now.get(name) != value)
