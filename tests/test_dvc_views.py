"""What users see of DVC: its edits of params.yaml, and its page of plots."""

import difflib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dvc.utils.hydra import apply_overrides

from pipeline import accept
from pipeline.artifacts.dvc_lock import renew_code
from pipeline.params import check
from pipeline.project.console import UserError
from pipeline.settings.recipes import apply_recipe, read_base
from tests.small import ROOT

if TYPE_CHECKING:
    from tests.browser import Visit


@pytest.mark.parametrize("recipe", [None, "best", "demo", "fast", "zaremba"])
def test_dvc_changes_only_the_line_that_it_sets(recipe: str | None) -> None:
    before = apply_recipe(read_base(ROOT), ROOT / f"recipes/{recipe}.yaml") if recipe else read_base(ROOT)
    Path("params.yaml").write_text(before)
    apply_overrides("params.yaml", ["train.seed=12345", "+train.momentum=0.5"])
    changes = difflib.ndiff(before.splitlines(), Path("params.yaml").read_text().splitlines())
    changed = [line[2:].split("#")[0].strip() for line in changes if line[0] in "+-"]
    assert changed == ["seed: 1", "seed: 12345", "momentum: 0.5"]


def test_settings_are_checked_before_dvc_writes_them() -> None:
    Path("params.yaml").write_text(read_base(ROOT))
    model = next(iter(check().models))
    settings = ["train.bptt=7", f"+models.{model}.init_range=0.25"]
    assert (check(settings).train.bptt, check(settings).models[model].init_range) == (7, 0.25)
    for setting, fault in {
        "train.bptt=0": "^params.yaml: train.bptt = 0: input should be",
        "+train.bppt=5": "^params.yaml: train.bppt: no such setting; did you mean bptt",
        "train.bppt=5": "^params.yaml: train.bppt: no such setting; did you mean bptt",
        "train.bptt": "^train.bptt: expected KEY=VALUE",
        "train.seed=${x}": "Interpolation key 'x' not found",
        "models.gru.cell=???": "Missing mandatory value",
    }.items():
        with pytest.raises(UserError, match=fault):
            check([setting])
    assert Path("params.yaml").read_text() == read_base(ROOT)
    Path("params.yaml").write_text("train: {")
    with pytest.raises(UserError, match=r"^params\.yaml"):
        check(["train.seed=2"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["models.lstm.epochs=1"], ["models.lstm.epochs does not exist yet: write +models.lstm.epochs=1"]),
        (
            ["models.grux.epochs=1"],
            ["models.grux.epochs does not exist yet: did you mean gru? For a new model, write +m"],
        ),
        (["trian.epochs=1", "trian.seed=1"], ["trian: no such setting; did you mean train?"]),
        (["train.lr=1", "train.learning_rate=x"], ["train.lr: no such setting; did you", "train.learning_rate = 'x'"]),
        (["train.epochs=0", "models.lstm.seed=1"], ["train.epochs = 0", "write +models.lstm.seed=1"]),
    ],
)
def test_each_wrong_setting_is_reported_on_a_separate_line(settings: list[str], said: list[str]) -> None:
    Path("params.yaml").write_text(read_base(ROOT))
    with pytest.raises(UserError) as refused:
        check(settings)
    lines = str(refused.value).split("\n")
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True)), lines


@pytest.mark.parametrize("text", ["", "- a", "models: [a]"])
def test_a_file_that_is_no_group_of_settings_is_reported_whatever_is_set(text: str) -> None:
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"^params\.yaml"):
        check(["models.grux.epochs=3"])


def test_an_error_of_dvcs_while_accepting_code_is_one_line() -> None:
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    Path("dvc.yaml").write_text("stages: {train: {cmd: 'true', deps: [pipeline], outs: [weights]}}")
    Path("dvc.lock").write_text("<<<<<<< HEAD\n")
    with pytest.raises(UserError, match=r"^DVC: .*dvc\.lock.* is unchanged\)$"):
        renew_code(["train"])


def test_a_damaged_lock_is_reported_before_the_proof_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = Path(accept.PROOF)
    proof.parent.mkdir()
    proof.write_text("def test_golden():\n    assert False\n")
    Path("dvc.lock").write_text("<<<<<<< HEAD\n")
    monkeypatch.setattr(sys, "argv", ["accept"])
    with pytest.raises(UserError, match=r"^dvc\.lock is damaged"):
        accept.main()


def test_the_check_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.params"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "no mistakes" in done.stdout


@pytest.fixture
def plots() -> Path:
    """DVC's page of plots of two training runs, one of them with a single epoch."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    shutil.copytree(ROOT / ".dvc/plots", ".dvc/plots")
    shutil.copy(ROOT / ".dvc/config", ".dvc/config.local")  # beside what `dvc init` wrote
    header = "epoch,train_perplexity,valid_perplexity\n"
    Path("long.csv").write_text(f"{header}1,100.5,120.5\n2,80.5,110.5\n")
    Path("short.csv").write_text(f"{header}1,100.5,120.5\n")
    options = ["-x", "epoch", "-y", "valid_perplexity", "-t", "training"]
    command = [sys.executable, "-m", "dvc", "plots", "show", "long.csv", "short.csv", *options]
    subprocess.run(command, check=True, capture_output=True)
    return Path("dvc_plots/index.html").absolute()


@pytest.mark.browser
def test_dvcs_page_draws_lines_and_the_points_of_a_single_epoch_without_a_network(plots: Path, visit: "Visit") -> None:
    visit.page.goto(plots.as_uri())
    for chart in ("long_csv", "short_csv"):
        visit.page.locator(f"#{chart} canvas").wait_for()
        visit.page.wait_for_function(
            """(chart) => {
                const canvas = document.querySelector(`#${chart} canvas`);
                const left = 0.3 * canvas.width;  // of which is the legend
                const { data } = canvas.getContext("2d").getImageData(left, 0, canvas.width - left, canvas.height);
                let blue = 0;
                for (let at = 0; at < data.length; at += 4) blue += data[at + 2] > data[at] + 60;
                return blue > 10;
            }""",
            arg=chart,
        )
    assert (visit.errors, visit.asked_elsewhere) == ([], [])


@pytest.mark.browser
def test_dvcs_page_loads_its_library_from_the_network_if_it_is_missing(plots: Path, visit: "Visit") -> None:
    shutil.rmtree(".dvc/plots/vega")
    visit.page.goto(plots.as_uri())
    assert {address.rsplit("/", 1)[-1].partition("@")[0] for address in visit.asked_elsewhere} == {
        "vega", "vega-lite", "vega-embed",
    }  # fmt: skip
