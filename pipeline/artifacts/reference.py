"""What git keeps so that nobody has to train it: the weights of the reference run, and the trainings of recipes.

They are in results/reference, DVC's remote `reference`: files by their digests and, for each training of a recipe, an
entry of DVC's run cache. Where `dvc repro` is to train with the same settings, data and code, DVC takes weights and
history from there instead.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ruamel.yaml import YAML

from pipeline.artifacts.checkpoint import is_being_trained
from pipeline.artifacts.dvc_lock import LockedStage, dvc_md5, read_lock
from pipeline.artifacts.history import history_path
from pipeline.artifacts.weights import weights_path
from pipeline.project.console import UserError, say
from pipeline.project.files import REFERENCE, atomic_write
from pipeline.project.git import git
from pipeline.settings.params import load_params

if TYPE_CHECKING:  # DVC takes a second to import
    from dvc.repo import Repo  # type: ignore[import-untyped]

REMOTE = "reference"  # in .dvc/config, at REFERENCE
CODE = Path("pipeline/lm")
RUNS = REFERENCE / "runs"  # where DVC looks for the run cache of a remote


class Lacking(NamedTuple):
    """A model without weights for which git has them."""

    model: str
    md5: str


def lacking() -> list[Lacking]:
    """The models without weights that may have those of the reference run. Raises UserError.

    Those whose settings in params.yaml and whose history are the ones that dvc.lock names, and that are not being
    trained: your own results are left alone.
    """
    params, stages = load_params(), read_lock()
    found = []
    for name, settings in params.models.items():
        stage, weights = stages.get(f"train@{name}", LockedStage()), weights_path(name)
        digest = stage.md5(weights)
        if not digest or weights.exists() or not _is_kept(kept(digest)):
            continue
        if stage.settings(name) == settings and stage.made(history_path(name)) and not is_being_trained(name):
            found.append(Lacking(name, digest))
    return found


def kept(md5: str) -> Path:
    """Where the remote has a file, by its digest."""
    return REFERENCE / "files/md5" / md5[:2] / md5[2:]


def _is_kept(file: Path) -> bool:
    return file.exists() or bool(git("ls-files", "--", str(file)))


def restore_kept(repo: "Repo") -> None:
    """Fill DVC's cache with what is kept, and give the models that lack weights those of the reference run.

    Raises UserError, when all else is done, for files that are not whole: DVC would delete them, so it never gets to
    see them.
    """
    from dvc.repo import lock_repo
    from dvc_data.hashfile.hash_info import HashInfo

    with lock_repo(repo):
        models, cache = lacking(), repo.cache.local
        wanted = {one.md5 for one in models} | {out["md5"] for _, run in kept_runs() for out in run["outs"]}
        wanted |= {file.parent.name + file.name for file in (REFERENCE / "files").rglob("*") if file.is_file()}
        wanted -= {md5 for md5 in wanted if cache.exists(md5)}
        whole = {md5 for md5 in wanted if kept(md5).is_file() and dvc_md5(kept(md5)) == md5}
        if whole:
            repo.cloud.pull([HashInfo("md5", md5) for md5 in whole], remote=REMOTE)
        if RUNS.exists():
            shutil.copytree(RUNS, repo.stage_cache.cache_dir, dirs_exist_ok=True)
        if brought := [one.model for one in models if cache.exists(one.md5)]:
            repo.checkout([str(weights_path(model)) for model in brought])
            say(f"the weights of {', '.join(brought)} are those of the reference run, from {REFERENCE}")
    if broken := sorted(str(kept(md5)) for md5 in wanted - whole):
        raise UserError(f"damaged or missing: {', '.join(broken)}: `git checkout {REFERENCE}` brings it back")


def kept_runs() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The entries of the run cache that git keeps, each with its file: what a stage ran on, and what it made."""
    for file in sorted(RUNS.rglob("*")):
        if file.is_file():
            yield file, YAML(typ="safe", pure=True).load(file)


def keep(repo: "Repo") -> list[str]:
    """Keep the training of each model in params.yaml, as dvc.lock has it -> their stages."""
    from dvc.repo import lock_repo
    from dvc.stage.serialize import to_single_stage_lockfile  # type: ignore[import-untyped]
    from dvc_data.hashfile.hash_info import HashInfo

    trained = [stage for stage in repo.index.stages if stage.name.startswith("train@")]
    with lock_repo(repo):
        for stage in trained:
            repo.stage_cache.save(stage)  # which puts the history into the cache as well
            entry = json.loads(json.dumps(to_single_stage_lockfile(stage)))
            repo.cloud.push([HashInfo("md5", out["md5"]) for out in entry["outs"]], remote=REMOTE)
            _write_run(entry)
    return [stage.addressing for stage in trained]


def renew_kept_runs() -> None:
    """Make the kept trainings those of the current code."""
    from dvc.repo import Repo

    with Repo() as repo:
        code = next(dep for stage in repo.index.stages for dep in stage.deps if dep.def_path == str(CODE))
        code.save()
    current = {"path": str(CODE), "hash": "md5", "md5": code.hash_info.value}
    for file, entry in list(kept_runs()):
        file.unlink()
        _write_run(entry | {"deps": [current if dep["path"] == str(CODE) else dep for dep in entry["deps"]]})


def _write_run(entry: dict[str, Any]) -> None:
    """Under the names that DVC gives it: the digest of what identifies the run, and of the whole."""
    from dvc.utils import dict_sha256  # type: ignore[import-untyped]

    def digest(of: dict[str, Any]) -> str:
        return dict_sha256(of, exclude=["size", "nfiles"])

    key = digest(entry | {"outs": [out["path"] for out in entry["outs"]]})
    with atomic_write(RUNS / key[:2] / key / digest(entry)) as file:
        YAML().dump(entry, file)
