"""Where MLflow's store is: in the root of today, whatever letters its path has, and nowhere else."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from sqlalchemy import make_url

from pipeline.project.files import clear_partial_files
from pipeline.tracking import finished, store
from pipeline.tracking.database import prepare_database
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.faults import fault_message
from pipeline.tracking.location import file_address, locate
from pipeline.tracking.registry import register
from tests.histories import history
from tests.small import ROOT, save_small_model
from tests.tracked import CORPUS, VOCABULARY

AWKWARD = "sp ace, q?m, per%41cent #ü"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run and its artifact."""
    project = tmp_path_factory.mktemp("published") / "project"
    project.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        publish("first", 100.0)
    return project


def publish(text: str, valid: float, *, registered: bool = False) -> str:
    """Publish a training with a file, as a new process would; returns the run's id."""
    _artifact_repos_cache.clear()  # MLflow's, of a process in which no folder moves
    weights, settings = save_small_model("lstm", VOCABULARY)
    Path("note.txt").write_text(text)
    facts = RunFacts("lstm", "f1a9", settings, CORPUS)
    run_id = finished.publish(facts, history([valid]), [Path("note.txt")], {"valid_perplexity": valid})
    assert run_id
    if registered:
        register(facts, run_id, weights, valid)
    return run_id


def all_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def addresses(project: Path) -> list[str]:
    """Every address of artifacts in a project's store."""
    with closing(sqlite3.connect(f"{(project / 'mlflow.db').as_uri()}?mode=ro", uri=True)) as database:
        experiments = database.execute("select artifact_location from experiments").fetchall()
        return [address for (address,) in experiments + database.execute("select artifact_uri from runs").fetchall()]


@given(st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1))
def test_a_file_is_addressed_whatever_its_letters(name: str) -> None:
    path = Path("/folder") / name / "mlflow.db"
    address = file_address(path)
    assert make_url(address).database == str(path)
    if address.startswith("sqlite:///"):  # of these MLflow makes the folder, by the letters of the address
        assert address == f"sqlite:///{path}"


def test_a_project_of_any_letters_keeps_all_that_is_its_own_and_writes_nothing_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / AWKWARD / "project"
    project.mkdir(parents=True)
    monkeypatch.chdir(project)
    run_id = publish("text", 100.0)
    assert Path("mlflow.db").is_file()
    assert Path(f"mlruns/{run_id}/artifacts/note.txt").read_text() == "text"
    assert [path.name for path in tmp_path.iterdir()] == [AWKWARD]
    assert [path.name for path in (tmp_path / AWKWARD).iterdir()] == ["project"]


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db", "sqlite:///other.db"])
def test_an_experiment_in_a_throw_away_copy_registers_its_model_in_the_real_store(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    copy = tmp_path / "project/.dvc/tmp/exps/copy"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run_id = publish("text", 100.0, registered=True)
    assert capsys.readouterr().err == ""
    shutil.rmtree(copy)
    monkeypatch.chdir(tmp_path)
    client = MlflowClient(file_address(tmp_path / "project" / (uri.rpartition("/")[2] or "mlflow.db")))
    version = client.get_model_version_by_alias("ptb-lstm", "champion")
    assert version.run_id == run_id
    assert str(copy) not in client.get_experiment("0").artifact_location
    (tmp_path / "model").mkdir()
    assert list(Path(client.download_artifacts(run_id, "", str(tmp_path / "model"))).rglob("note.txt"))
    source = Path(client.get_model_version_download_uri("ptb-lstm", version.version).removeprefix("file://"))
    assert (source / "artifacts/model.safetensors").is_file()
    assert set(os.listdir(tmp_path)) == {"project", "model"}


def test_weights_that_are_a_link_into_dvcs_cache_are_registered(capsys: pytest.CaptureFixture) -> None:
    weights, settings = save_small_model("lstm", VOCABULARY)
    cached = Path("cache/d4/1d8cd98f").absolute()
    cached.parent.mkdir(parents=True)
    weights.rename(cached)
    weights.symlink_to(cached)
    facts = RunFacts("lstm", "f1a9", settings, CORPUS)
    run_id = finished.publish(facts, history([90.0]), [weights], {"valid_perplexity": 90.0})
    assert run_id
    register(facts, run_id, weights, 90.0)
    assert capsys.readouterr().err == ""
    (registered,) = Path("mlruns/models").rglob("*.safetensors")
    assert not registered.is_symlink()
    assert registered.read_bytes() == cached.read_bytes()


def test_a_copied_project_writes_nothing_into_the_original(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = all_files(published)
    copy = tmp_path / AWKWARD
    shutil.copytree(published, copy)
    monkeypatch.chdir(copy)
    first, second = publish("first, edited", 100.0), publish("second", 90.0)
    assert all_files(published) == before
    assert (copy / f"mlruns/{first}/artifacts/note.txt").read_text() == "first, edited"
    assert (copy / f"mlruns/{second}/artifacts/note.txt").read_text() == "second"
    assert all(address.startswith((copy / "mlruns").as_uri()) for address in addresses(copy))


@pytest.mark.parametrize("chosen_by_mlflow", [False, True])
def test_a_moved_project_takes_its_artifacts_along(
    chosen_by_mlflow: bool, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / AWKWARD
    shutil.copytree(published, old)
    monkeypatch.chdir(old)
    run_id = publish("first", 100.0)
    if chosen_by_mlflow:  # as where a relative MLFLOW_TRACKING_URI named the store from the first
        (old / "mlruns/1").mkdir()
        (old / f"mlruns/{run_id}").rename(old / f"mlruns/1/{run_id}")
        with closing(sqlite3.connect("mlflow.db")) as database, database:
            database.execute(
                "update experiments set artifact_location = ? where experiment_id = 1", (f"{old}/mlruns/1",)
            )
            database.execute("update runs set artifact_uri = ?", (f"{old}/mlruns/1/{run_id}/artifacts",))
    old.rename(new)
    monkeypatch.chdir(new)
    assert publish("other text", 100.0) == run_id
    assert not old.exists()
    (note,) = (new / "mlruns").rglob("note.txt")
    assert note.read_text() == "other text"


def test_a_moved_project_takes_its_registered_models_along(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / AWKWARD
    shutil.copytree(published, old)
    monkeypatch.chdir(old)
    publish("first", 100.0, registered=True)
    old.rename(new)
    monkeypatch.chdir(new)
    client, experiment = store.connect()
    version = client.get_model_version_by_alias("ptb-lstm", "champion")
    (logged,) = client.search_logged_models([experiment])
    stored = client.get_model_version_download_uri("ptb-lstm", version.version)
    for place in (version.source, stored, logged.artifact_location):
        assert Path(url2pathname(urlsplit(place).path), "artifacts/model.safetensors").is_file(), place


def test_a_place_that_somebody_chose_for_artifacts_is_left_alone(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(published, project)
    monkeypatch.chdir(project)
    client, _ = store.connect()
    (tmp_path / "disk/mlruns").mkdir(parents=True)
    chosen = ["s3://bucket/mlruns", (tmp_path / "disk/artifacts").as_uri()]
    for number, place in enumerate(chosen):
        client.create_experiment(f"other {number}", place)
    store.connect()
    assert set(chosen) <= set(addresses(project))


def test_a_fresh_database_that_is_named_is_made_under_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
    location = locate()
    assert location.database == tmp_path / "other.db"
    with FileLock(".other.db.lock"):
        with pytest.raises(TimeoutError) as blocked:
            store.connect()
        assert "another process holds" in fault_message(blocked.value)
        assert not location.database.exists()


def test_a_fresh_database_is_left_alone_by_a_command_that_starts_while_it_is_made(
    mlflow_tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        """MLflow's, which takes seconds to make its tables."""

        def __init__(self, address: str) -> None:
            self.path = make_url(address).database

        def search_experiments(self, **_: object) -> None:
            shutil.copy(mlflow_tables, self.path)
            clear_partial_files(Path())  # with which every command starts

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    prepare_database(locate())
    assert Path("mlflow.db").exists()


@pytest.mark.long
def test_several_processes_may_meet_at_a_fresh_database_that_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from pipeline.tracking.store import connect; print(connect()[1])"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "sqlite:///other.db"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(4)]
    for process in processes:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert output == "1\n"


def test_a_journal_without_its_database_spoils_no_new_one() -> None:
    """Whoever moves a damaged mlflow.db away may leave its journal, which SQLite would play into the new file."""
    path, journal = Path("mlflow.db"), Path("mlflow.db-journal")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in ("pragma cache_size = 1", "create table songs (title)", "begin"):
            database.execute(statement)
        for _ in range(20):
            database.execute("insert into songs values (randomblob(10000))")
        left = journal.read_bytes()
    path.unlink()
    journal.write_bytes(left)
    prepare_database(locate())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        assert database.execute("select count(*) from experiments").fetchone() == (1,)
