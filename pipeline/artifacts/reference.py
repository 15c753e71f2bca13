"""Trained models that are in git, so that nobody has to train them: the reference run, and the runs of recipes.

They are in results/reference, DVC's remote `reference`: files named by their digests and, for each training and each
evaluation, an entry of DVC's run cache. Instead of doing the same with the same settings, data and code again, `dvc
repro` takes weights, history and metrics from there.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ruamel.yaml import YAML

from pipeline.artifacts.checkpoint import is_being_trained
from pipeline.artifacts.dvc_lock import LockedStage, code_of, dvc_md5, read_lock
from pipeline.artifacts.history import history_path
from pipeline.artifacts.weights import weights_path
from pipeline.project.console import UserError, say
from pipeline.project.files import REFERENCE, atomic_write
from pipeline.project.git import git
from pipeline.settings.params import load_params, parse_yaml, read_text

if TYPE_CHECKING:  # DVC takes a second to import
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc.stage import Stage  # type: ignore[import-untyped]

REMOTE = "reference"  # in .dvc/config, at REFERENCE
KEPT_STAGES = ("train@", "evaluate@")
RUNS = REFERENCE / "runs"  # where DVC expects the run cache of a remote


class Missing(NamedTuple):
    """A model without weights here, and the digest of its weights in git."""

    model: str
    md5: str


def missing_weights() -> list[Missing]:
    """The models that have no weights and can get those in dvc.lock from git. Raises UserError.

    Their settings in params.yaml and their histories match dvc.lock, and they are not being trained: your own results
    are left alone.
    """
    params, stages = load_params(), read_lock()
    found = []
    for name, settings in params.models.items():
        stage, weights = stages.get(f"train@{name}", LockedStage()), weights_path(name)
        digest = stage.md5(weights)
        if not digest or weights.exists() or not _is_kept(kept_path(digest)):
            continue
        if stage.settings(name) == settings and stage.made(history_path(name)) and not is_being_trained(name):
            found.append(Missing(name, digest))
    return found


def kept_path(md5: str) -> Path:
    """The path of a file in the remote, by its digest."""
    return REFERENCE / "files/md5" / md5[:2] / md5[2:]


def _is_kept(file: Path) -> bool:
    return file.exists() or bool(git("ls-files", "--", str(file)))


def restore_kept(repo: "Repo") -> None:
    """Fill DVC's cache from results/reference, and give models without weights those in dvc.lock.

    Damaged files are kept from DVC, which would delete them. Raises UserError for these at the end, after all others
    have been restored.
    """
    from dvc.repo import lock_repo
    from dvc_data.hashfile.hash_info import HashInfo

    with lock_repo(repo):
        models, cache = missing_weights(), repo.cache.local
        wanted = {one.md5 for one in models} | {out["md5"] for _, run in kept_runs() for out in run["outs"]}
        wanted |= {file.parent.name + file.name for file in (REFERENCE / "files").rglob("*") if file.is_file()}
        wanted -= {md5 for md5 in wanted if cache.exists(md5)}
        intact = {md5 for md5 in wanted if kept_path(md5).is_file() and dvc_md5(kept_path(md5)) == md5}
        if intact:
            repo.cloud.pull([HashInfo("md5", md5) for md5 in intact], remote=REMOTE)
        if RUNS.exists():
            shutil.copytree(RUNS, repo.stage_cache.cache_dir, dirs_exist_ok=True)
        if restored := [one.model for one in models if cache.exists(one.md5)]:
            repo.checkout([str(weights_path(model)) for model in restored])
            say(f"restored from {REFERENCE}: the weights of {', '.join(restored)}")
    if damaged := sorted(str(kept_path(md5)) for md5 in wanted - intact):
        raise UserError(f"damaged or missing: {', '.join(damaged)}: run `git checkout {REFERENCE}`")


def kept_runs() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The entries of the run cache in git, each with its file: the inputs and outputs of a stage.

    Raises UserError if one is damaged.
    """
    for file in sorted(RUNS.rglob("*")):
        if file.is_file():
            yield file, _read_run(file)


def kept_run(stage: "Stage", made: Mapping[str, str]) -> dict[str, Any] | None:
    """What is kept of a stage with its settings, its code and, where its data are not here, those in dvc.lock.

    made: the digests, by path, of files that will be other ones when it runs
    """
    now = copy(stage)  # in which DVC notes what its inputs are now
    now.deps = [copy(dep) for dep in stage.deps]
    now.save_deps(allow_missing=True)
    if not all(dep.hash_info for dep in now.deps):
        return None
    wanted = _entry_of(now)
    for dep in wanted["deps"]:
        dep["md5"] = made.get(dep["path"], dep["md5"])
    folder = _folder_of(wanted)
    return next((entry for file, entry in kept_runs() if file.parent == folder), None)


def take_kept_run(stage: "Stage", entry: dict[str, Any]) -> None:
    """Put what is kept of a stage in its place, and into dvc.lock."""
    from dvc.stage.loader import StageLoader  # type: ignore[import-untyped]

    stage.repo.stage_cache._create_stage(entry, wdir=stage.wdir).checkout(force=True)
    StageLoader.fill_from_lock(stage, entry)
    stage.dump(update_pipeline=False)


def keep(repo: "Repo") -> list[str]:
    """Store the training and the evaluation of each model in params.yaml that dvc.lock has; returns their stages."""
    from dvc.repo import lock_repo
    from dvc_data.hashfile.hash_info import HashInfo

    stages = [stage for stage in repo.index.stages if stage.name.startswith(KEPT_STAGES)]
    recorded = [stage for stage in stages if all(out.hash_info for out in stage.outs)]
    with lock_repo(repo):
        for stage in recorded:
            repo.stage_cache.save(stage)  # also puts history and metrics into the cache
            entry = _entry_of(stage)
            repo.cloud.push([HashInfo("md5", out["md5"]) for out in entry["outs"]], remote=REMOTE)
            _write_run(entry)
    return [stage.addressing for stage in recorded]


def renew_kept_runs() -> None:
    """Write the digests of the current code into the stored trainings and evaluations."""
    from dvc.repo import Repo

    with Repo() as repo:
        code = current_code(repo)
    for file, entry in list(kept_runs()):
        file.unlink()
        _write_run(entry | {"deps": [code.get(dep["path"], dep) for dep in entry["deps"]]})


def current_code(repo: "Repo") -> dict[str, dict[str, str]]:
    """The current code that trainings and evaluations depend on, by path, as dvc.lock has it."""
    stages = [stage for stage in repo.index.stages if stage.name.startswith(KEPT_STAGES)]
    code = {dep.def_path: dep for stage in stages for dep in code_of(stage)}
    for dep in code.values():
        dep.save()
    return {path: {"path": path, "hash": "md5", "md5": dep.hash_info.value} for path, dep in code.items()}


def _entry_of(stage: "Stage") -> dict[str, Any]:
    """Its inputs and outputs, as in dvc.lock."""
    from dvc.stage.serialize import to_single_stage_lockfile  # type: ignore[import-untyped]

    entry: dict[str, Any] = json.loads(json.dumps(to_single_stage_lockfile(stage)))
    return entry


def _read_run(file: Path) -> dict[str, Any]:
    """Raises UserError if it does not have the digest that is its name."""
    with suppress(UserError):
        entry: dict[str, Any] = parse_yaml(read_text(file), file)
        if _digest(entry) == file.name:
            return entry
    raise UserError(f"damaged: {file}: run `git checkout {REFERENCE}`")


def _write_run(entry: dict[str, Any]) -> None:
    """Write it under DVC's names: a digest of what identifies the run, and one of the entire entry."""
    with atomic_write(_folder_of(entry) / _digest(entry)) as file:
        YAML().dump(entry, file)


def _folder_of(entry: dict[str, Any]) -> Path:
    key = _digest(entry | {"outs": [out["path"] for out in entry["outs"]]})
    return RUNS / key[:2] / key


def _digest(of: dict[str, Any]) -> str:
    from dvc.utils import dict_sha256  # type: ignore[import-untyped]

    digest: str = dict_sha256(of, exclude=["size", "nfiles"])
    return digest
