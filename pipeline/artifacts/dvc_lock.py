"""dvc.lock: reading the inputs and outputs of DVC's stages, and renewing the digests of their code."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from pipeline.lm.settings import Settings
from pipeline.project.console import UserError
from pipeline.project.files import PARAMS
from pipeline.settings.mistakes import validate
from pipeline.settings.overlay import overlay
from pipeline.settings.params import parse_yaml

if TYPE_CHECKING:  # DVC takes a second to import
    from dvc.dependency import Dependency  # type: ignore[import-untyped]
    from dvc.stage import Stage  # type: ignore[import-untyped]

LOCK = Path("dvc.lock")


class LockedFile(BaseModel):
    path: Path
    md5: str | None = None


class LockedStage(BaseModel):
    """A stage in dvc.lock, with the fields that are used here."""

    params: dict[str, dict[str, Any]] = {}
    deps: list[LockedFile] = []
    outs: list[LockedFile] = []

    def made(self, path: Path) -> bool:
        """Whether a file is unchanged since the stage wrote it."""
        return path.exists() and {out.path: out.md5 for out in self.outs}.get(path) == dvc_md5(path)

    def md5(self, path: Path) -> str | None:
        """The digest of an input or output when the stage ran."""
        return {file.path: file.md5 for file in (*self.deps, *self.outs)}.get(path)

    def settings(self, model: str) -> Settings:
        """The settings that the stage trained a model with. Raises UserError."""
        try:
            values = self.params[PARAMS.name]
            settings = overlay(values["train"], values[f"models.{model}"])
        except (KeyError, TypeError):
            raise UserError(f"{LOCK} does not name its settings: run `dvc repro train@{model}`") from None
        return validate(Settings, settings, LOCK, ("models", model))


class Lock(BaseModel):
    stages: dict[str, LockedStage]


def read_lock() -> dict[str, LockedStage]:
    """The stages that DVC has run. Raises UserError if dvc.lock is damaged."""
    try:
        return Lock.model_validate(parse_yaml(LOCK.read_text(encoding="utf-8"), LOCK)).stages
    except FileNotFoundError:
        return {}
    except (UserError, UnicodeDecodeError, ValidationError):
        raise UserError(f"{LOCK} is damaged: restore it with git, or delete it and run `dvc repro`") from None


def renew_code(stages: Collection[str]) -> list[str]:
    """Write only the digests of the current code into dvc.lock, for those of these stages that are in it.

    Returns the stages whose digests changed. Uses DVC's own API, which needs neither data nor weights for this.
    Raises UserError if DVC fails.
    """
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]

    try:
        return _renew_code(stages)
    except DvcException as error:
        raise UserError(f"DVC: {' '.join(str(error).split())} ({LOCK} is unchanged)") from None


def _renew_code(stages: Collection[str]) -> list[str]:
    from dvc.repo import Repo  # type: ignore[import-untyped]

    renewed = []
    with Repo() as repo, repo.lock:
        for stage in repo.index.stages:
            if stage.name.partition("@")[0] not in stages or not any(out.hash_info for out in stage.outs):
                continue
            code = code_of(stage)
            before = [dep.hash_info for dep in code]
            for dep in code:
                dep.save()
            if [dep.hash_info for dep in code] != before:
                stage.dump(update_pipeline=False)
                renewed.append(stage.name)
    return sorted(renewed)


def code_of(stage: "Stage") -> "list[Dependency]":
    """The dependencies of a stage that are this project's code."""
    return [dep for dep in stage.deps if Path(dep.def_path).parts[0] == "pipeline"]


def dvc_md5(path: Path) -> str:
    """DVC's digest of a file, or of a folder, which is that of a list of its files."""
    if path.is_dir():
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        listing = [{"md5": dvc_md5(file), "relpath": name} for name, file in files]
        return f"{hashlib.md5(json.dumps(listing).encode()).hexdigest()}.dir"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
