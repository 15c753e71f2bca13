"""`make repro` under difficulties: no corpus, another process at work, a missing cache, Ctrl-C, a kill.

With the real DVC, git and make. Training, evaluation and report are replaced by stubs, as their imports take seconds.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from pipeline.artifacts.checkpoint import exclusive
from pipeline.artifacts.reference import kept_path
from pipeline.corpus import sources
from pipeline.demo import workspace_environment
from pipeline.project.files import RAW, SPLITS
from pipeline.settings.schema import Download
from tests.small import ROOT
from tests.test_pipeline import MODELS, WEIGHTS, Repository, shorten

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("repro")]

MAKE = ("make", "-o", ".venv/.complete", "repro")
STAGES = {"train@lstm", "train@gru", "evaluate@lstm", "evaluate@gru", "report"}
WITHOUT_TEXT = "no source in params.yaml delivers the text of sample, which training and evaluation need;\n"
ADVICE = ("git add", "dvc push", "autostage")


STUBS = {
    "train": """
def main():
    name = sys.argv[1]
    for epoch in range(load_params().model(name).epochs):
        say(f"{name} epoch {epoch + 1}")
        time.sleep(0.1 * epoch)
    write(weights_path(name), f"weights of {load_params().model(name)}")
    write(history_path(name), f"history of {name}")
""",
    "evaluate": """
def main():
    write(metrics_path(sys.argv[1]), weights_path(sys.argv[1]).read_text())
""",
    "report": """
def main():
    write(REPORT / "report.md", f"{load_params().report}")
    write(VALID_PERPLEXITY, "{}")
""",
}
TEMPLATE = """import sys, time
from pipeline.artifacts.history import history_path
from pipeline.artifacts.metrics import metrics_path
from pipeline.artifacts.weights import weights_path
from pipeline.project.console import run, say
from pipeline.project.files import REPORT, VALID_PERPLEXITY, atomic_write
from pipeline.settings.params import load_params

def write(path, text):
    with atomic_write(path) as file:
        file.write(text)
{main}
run(main)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Two models, "trained" and committed with their weights."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    shutil.copy(ROOT / "Makefile", repository.path)
    for stage, main in STUBS.items():
        (repository.path / f"pipeline/{stage}.py").write_text(TEMPLATE.replace("{main}", main))
    repository.edit_params(shorten)
    repository.edit_params(lambda params: params["train"].update(epochs=1))
    repository.commit("two models")
    code, said = make(repository, "JOBS=2")
    assert (code, repository.stages_run(said)) == (0, STAGES | {"download", "preprocess"})
    assert not any(advice in said for advice in ADVICE)
    repository.dvc("push", "--remote", "reference", *WEIGHTS)
    repository.commit("results")
    return repository


@pytest.fixture
def clone(repository: Repository, tmp_path: Path) -> Repository:
    """A fresh clone in which no source delivers the corpus."""
    return repository.clone(tmp_path / "clone")


def start(repository: Repository, *arguments: str) -> subprocess.Popen[str]:
    """`make repro` in a new process group, as a shell starts it."""
    return subprocess.Popen(
        [*MAKE, *arguments],
        cwd=repository.path,
        env=workspace_environment() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def make(repository: Repository, *arguments: str) -> tuple[int, str]:
    """The exit code of `make repro`, and its output."""
    with start(repository, *arguments) as made:
        said = made.communicate()[0]
    return made.returncode, said


def text_of(repository: Repository) -> None:
    repository.run(sys.executable, "-m", "pipeline.sample", "data/sample")


def train_longer(repository: Repository, epochs: int) -> subprocess.Popen[str]:
    """A `make repro` that has started to train this many epochs of gru."""
    text_of(repository)
    repository.edit_params(lambda params: params["models"]["gru"].update(epochs=epochs))
    made = start(repository)
    while "gru epoch 2" not in (line := made.stdout.readline()):
        assert line
    return made


def test_without_the_corpus_everything_that_does_not_need_it_works(clone: Repository) -> None:
    for arguments in ([], ["JOBS=2"]):
        code, said = make(clone, *arguments)
        assert (code, clone.stages_run(said)) == (0, set())
        assert WITHOUT_TEXT in said
    assert clone.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("model", "arguments"), [("gru", []), ("gru", ["JOBS=2"]), ("gru", ["ARGS=evaluate@gru"]), ("new", [])]
)
def test_what_needs_the_corpus_fails_with_the_error_of_the_download_before_anything_starts(
    clone: Repository, model: str, arguments: list[str]
) -> None:
    clone.edit_params(lambda params: params["models"].setdefault(model, {"cell": "gru"}).update(epochs=2))
    code, said = make(clone, *arguments)
    assert (code, clone.stages_run(said)) == (2, {"download"})
    assert "error: no source delivers the corpus\n  data/sample: " in said
    assert "error: failed to reproduce 'download', see above: fix that, then run the same command" in said
    clone.git("checkout", "-q", "params.yaml")
    assert clone.git("status", "--porcelain") == ""
    assert list((clone.path / RAW).iterdir()) == []


def test_what_a_failed_download_leaves_does_not_count_as_an_edit(clone: Repository) -> None:
    shorten_gru(clone)
    assert make(clone)[0] == 2
    clone.git("checkout", "-q", "params.yaml")
    code, said = make(clone)
    assert (code, clone.stages_run(said)) == (0, set())


def test_an_edit_that_does_not_need_the_text_works_without_it(clone: Repository) -> None:
    figures = {"lstm": {"train": 1, "valid": 2, "test": 3}}
    clone.edit_params(lambda params: params["report"].update(course_report=figures))
    code, said = make(clone)
    assert (code, clone.stages_run(said)) == (0, {"report"})
    assert not any(advice in said for advice in ADVICE)


def test_the_corpus_is_downloaded_if_a_source_has_it_even_if_nothing_is_stale(clone: Repository) -> None:
    text_of(clone)
    code, said = make(clone)
    assert (code, clone.stages_run(said)) == (0, {"download", "preprocess"})
    assert WITHOUT_TEXT not in said


def test_a_source_with_another_text_is_not_an_error(clone: Repository) -> None:
    (clone.path / "data/sample").mkdir(parents=True)
    (clone.path / "data/sample/sample.train.txt").write_text("a web page of a network that wants a password\n")
    code, said = make(clone)
    assert (code, clone.stages_run(said)) == (0, {"download"})
    assert WITHOUT_TEXT in said


def test_a_source_that_does_not_respond_costs_only_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(20)

    monkeypatch.setenv("NO_PROXY", "*")
    server = HTTPServer(("127.0.0.1", 0), Silent)
    Thread(target=server.serve_forever, daemon=True).start()
    files = {split: {"name": f"{split}.txt", "sha256": None} for split in SPLITS}
    given = {"timeout_seconds": 30, "files": files}
    silent = f"http://127.0.0.1:{server.server_address[1]}/"
    started = time.monotonic()
    assert not sources.any_source_responds(Download.model_validate(given | {"sources": [silent, "missing", "a.tgz"]}))
    assert time.monotonic() - started < 2 * sources.TIMEOUT
    Path("train.txt").touch()
    assert sources.any_source_responds(Download.model_validate(given | {"sources": [silent, "."]}))


def test_a_missing_cache_is_filled_from_the_results_and_from_the_reference(clone: Repository) -> None:
    text_of(clone)
    make(clone)
    shutil.rmtree(clone.path / ".dvc/cache")
    shutil.rmtree(clone.path / "data/sample")  # only data/raw has the text
    (clone.path / WEIGHTS[0]).unlink()
    code, said = make(clone)
    assert (code, clone.stages_run(said)) == (0, set())
    assert "up to date" in clone.dvc("status")


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_file_of_the_reference_is_named_every_time_and_nothing_is_trained(clone: Repository) -> None:
    text_of(clone)
    file = kept_path(clone.md5("train@gru", WEIGHTS[1]))
    line = f"error: damaged or missing: {file}: run `git checkout results/reference`\n"
    for harm, status in ((damage, f" M {file}\n"), (Path.unlink, f" D {file}\n")):
        harm(clone.path / file)
        for _ in range(2):
            code, said = make(clone)
            assert (code, clone.stages_run(said)) == (2, set())
            assert line in said
        assert clone.git("status", "--porcelain") == status
    assert [(clone.path / path).exists() for path in WEIGHTS] == [True, False]
    clone.git("checkout", "results/reference")
    assert "restored from results/reference: the weights of gru\n" in make(clone)[1]


def shorten_gru(repository: Repository) -> None:
    repository.edit_params(lambda params: params["models"]["gru"].update(epochs=2))


def results_of_gru(repository: Repository) -> list[str]:
    return [
        (repository.path / "results/models/gru" / name).read_text()
        for name in ("model.safetensors", "history.csv", "metrics.json")
    ]


def test_kept_results_are_not_made_again_and_can_be_undone(clone: Repository, tmp_path: Path) -> None:
    text_of(clone)
    shorten_gru(clone)
    assert clone.stages_run(make(clone)[1]) >= {"train@gru", "evaluate@gru"}
    made = results_of_gru(clone)
    clone.run(sys.executable, "-m", "pipeline.reference", "--keep")
    clone.git("checkout", "params.yaml", "dvc.lock", "results")
    with (clone.path / "pipeline/lm/errors.py").open("a") as file:
        file.write("# an edit that changes no number\n")
    proof = clone.path / "tests/test_golden.py"
    proof.parent.mkdir()
    proof.write_text("def test_golden():\n    pass\n")
    assert "accepted the code for" in clone.run(sys.executable, "-m", "pipeline.accept")
    clone.commit("what is kept")

    other = clone.clone(tmp_path / "other")
    text_of(other)
    shorten_gru(other)
    code, said = make(other)
    assert (code, other.stages_run(said)) == (0, {"download", "preprocess", "report"})
    assert results_of_gru(other) == made
    other.git("checkout", "params.yaml", "dvc.lock", "results")
    other.dvc("checkout")
    assert "up to date" in other.dvc("status")

    without_text = clone.clone(tmp_path / "without_text")
    shorten_gru(without_text)
    code, said = make(without_text)
    assert (code, without_text.stages_run(said)) == (0, {"report"})
    assert WITHOUT_TEXT in said
    assert results_of_gru(without_text) == made

    shorten_gru(other)
    shutil.rmtree(other.path / ".dvc/cache")
    file = kept_path(hashlib.md5(made[0].encode()).hexdigest())
    damage(other.path / file)
    code, said = make(other)
    assert (code, other.stages_run(said)) == (2, set())
    assert f"error: damaged or missing: {file}: run `git checkout" in said


def test_an_error_of_dvcs_while_restoring_weights_is_one_line(clone: Repository) -> None:
    (clone.path / ".dvc/config").write_text("[core\n")
    said = clone.run(sys.executable, "-m", "pipeline.reference", check=False)
    assert said.startswith("error: DVC: ")
    assert said.count("\n") == 1


def test_weights_are_restored_neither_during_training_nor_next_to_another_history(clone: Repository) -> None:
    history = clone.path / "results/models/lstm/history.csv"
    history.write_text("of another training")
    with exclusive(clone.path / ".checkpoints/gru-0123456789abcdef.pt"):
        assert clone.take_weights() == ""
    history.unlink()
    assert clone.take_weights() == "restored from results/reference: the weights of gru\n"


def test_a_second_make_repro_waits_for_the_first_and_trains_nothing(clone: Repository) -> None:
    first = train_longer(clone, epochs=12)
    with ThreadPoolExecutor() as pool:
        rest = pool.submit(first.communicate)
        code, said = make(clone)
    assert (code, first.wait()) == (0, 0)
    assert "waiting for process " in said
    assert clone.stages_run(said + rest.result()[0]) == {"evaluate@gru", "report"}


def repro_of(made: subprocess.Popen[str]) -> psutil.Process:
    (command,) = [one for one in psutil.Process(made.pid).children() if "pipeline.repro" in one.cmdline()]
    return command


@pytest.mark.long
def test_right_after_a_kill_the_same_command_continues(clone: Repository) -> None:
    made = train_longer(clone, epochs=12)
    repro_of(made).kill()
    code, said = make(clone)
    made.communicate()
    assert code == 0
    assert clone.stages_run(said) >= {"train@gru", "evaluate@gru", "report"}


@pytest.fixture
def misleading_ids() -> Iterator[list[int]]:
    """The process ids of a zombie and of a program that has nothing to do with DVC."""
    with subprocess.Popen(["true"]) as zombie, subprocess.Popen(["sleep", "1000"]) as other:
        while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.1)
        yield [zombie.pid, other.pid]
        other.kill()


def test_locks_of_processes_that_have_ended_are_ignored(clone: Repository, misleading_ids: list[int]) -> None:
    held = [{"pid": pid, "cmd": "dvc repro"} for pid in misleading_ids]
    folders = [str(clone.path / f"results/models/{model}/history.csv") for model in MODELS]
    locks = {"write": {folders[0]: held[0]}, "read": {folders[1]: held}}
    (clone.path / ".dvc/tmp").mkdir(exist_ok=True)
    (clone.path / ".dvc/tmp/rwlock").write_text(json.dumps(locks))
    text_of(clone)
    clone.edit_params(lambda params: params["models"]["gru"].update(epochs=2))
    code, said = make(clone)
    assert (code, clone.stages_run(said)) == (0, STAGES - {"train@lstm", "evaluate@lstm"} | {"download", "preprocess"})


@pytest.mark.parametrize("ending", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_one_says_that_the_same_command_continues(clone: Repository, ending: signal.Signals) -> None:
    made = train_longer(clone, epochs=12)
    os.killpg(made.pid, ending)
    said = made.communicate()[0]
    assert "interrupted: run the same command to continue\n" in said
    assert not [line for line in said.splitlines() if "exited with" in line or "ERROR" in line or "Traceback" in line]
    code, said = make(clone)
    assert code == 0
    assert clone.stages_run(said) >= {"train@gru", "evaluate@gru", "report"}
