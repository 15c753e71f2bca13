"""The report: every number from the results, every verdict from the numbers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.history import write_history
from pipeline.artifacts.metrics import read_corpus_sizes
from pipeline.project.console import UserError
from pipeline.report import main, render, write_report
from pipeline.reporting.results import duration, read_results
from pipeline.settings.params import load_params
from tests.histories import history
from tests.small import ROOT, small_settings
from tests.test_spread import study

SETTINGS = small_settings(hidden_size=200, embedding_size=200).model_dump()
FOUR = {
    "lstm_dropout": {"cell": "lstm", "dropout": 0.4},
    "lstm": {"cell": "lstm", "dropout": 0.0},
    "gru_dropout": {"cell": "gru", "dropout": 0.4},
    "gru": {"cell": "gru", "dropout": 0.0},
}
FALLING, OVER_FITTING = [150.0, 120.0, 110.0], [150.0, 120.0, 130.0]
TESTS = {"lstm_dropout": 91.9, "lstm": 115.0, "gru_dropout": 97.5, "gru": 118.0}
COURSE_REPORT = {"lstm_dropout": {"train": 49.85, "valid": 113.83, "test": 106.74}}


def params(
    models: Mapping[str, dict[str, Any]] = FOUR,
    course_report: dict[str, Any] | None = COURSE_REPORT,
    corpus: str = "ptb",
) -> None:
    """Write a params.yaml; JSON is YAML too."""
    document = {
        "recipe": "test",
        "processes": 1,
        "download": {
            "timeout_seconds": 1,
            "sources": ["x"],
            "files": {split: {"name": f"{split}.txt", "sha256": "0" * 64} for split in ("train", "valid", "test")},
        },
        "preprocess": {"corpus": corpus, "expected": None},
        "train": SETTINGS,
        "models": models,
        "evaluate": {"dynamic": None},
        "report": {"course_report": course_report},
    }
    Path("params.yaml").write_text(json.dumps(document))


def model(name: str, test: float, valid: list[float] = FALLING, **changed: float) -> None:
    """Write what training and evaluation of a model leave."""
    folder = Path("results/models") / name
    write_history(folder / "history.csv", history(valid))
    perplexities = {"train_perplexity": 60.0, "valid_perplexity": min(valid), "test_perplexity": test}
    metrics = perplexities | {"best_epoch": valid.index(min(valid)) + 1, "parameters": 4651600} | changed
    (folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture(autouse=True)
def four_models() -> None:
    params()
    for name, test in TESTS.items():
        model(name, test, FALLING if "dropout" in name else OVER_FITTING)
    sizes = {"train_tokens": 929589, "valid_tokens": 73760, "test_tokens": 82430, "vocabulary_size": 10000}
    Path("results/corpus.json").write_text(json.dumps(sizes))


def report() -> str:
    """The report's text, without its figures, which take longer."""
    params = load_params()
    return render(
        read_results(params.models), params.preprocess.corpus, read_corpus_sizes(), params.report.course_report or {}
    )


def test_the_heading_names_the_corpus() -> None:
    assert report().startswith("# Language models on `ptb`, side by side\n")
    params(corpus="mine")
    assert report().startswith("# Language models on `mine`, side by side\n")


def row(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_the_numbers_of_every_model() -> None:
    text = report()
    assert "929,589" in text
    assert row(text, "lstm_dropout") == [
        "`lstm_dropout`", "110.00", "**91.90**", "60.00", "113.83", "106.74", "LSTM", "0.4", "4,651,600", "3 of 3",
        "3 min",
    ]  # fmt: skip
    assert row(text, "gru")[4:] == ["-", "-", "GRU", "0", row(text, "gru")[8], "2 of 3", "3 min"]


def test_a_gpu_is_named_with_the_models_that_were_trained_on_it() -> None:
    assert "Trained on" not in report()
    for name in ("lstm", "gru"):
        path = Path(f"results/models/{name}/metrics.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"gpu": "NVIDIA H100 80GB HBM3, 79 GiB"}))
    assert "\n\nTrained on NVIDIA H100 80GB HBM3, 79 GiB: `lstm`, `gru`.\n\n" in report()


def test_a_variant_of_a_cell_is_named_as_such() -> None:
    params(FOUR | {"gru": {"cell": "gru_textbook"}})
    assert "GRU (textbook)" in row(report(), "gru")


def test_every_row_of_a_table_has_as_many_cells_as_its_header() -> None:
    blocks = [block.splitlines() for block in report().split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1


def test_the_same_results_give_the_same_bytes() -> None:
    write_report()
    first = {path.name: path.read_bytes() for path in Path("results/report").iterdir()}
    write_report()
    assert first == {path.name: path.read_bytes() for path in Path("results/report").iterdir()}
    assert set(first) == {
        "report.md",
        "index.html",
        "histories.csv",
        "comparison.svg",
        "curves.svg",
        "learning_rates.svg",
    }


def test_every_figure_of_the_text_exists() -> None:
    write_report()
    text = Path("results/report/report.md").read_text()
    assert text == report()
    links = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(links) == 3
    assert all((Path("results/report") / link).is_file() for link in links)


def test_the_conclusions_of_the_course_report_are_confirmed_with_the_numbers() -> None:
    text = report()
    assert "- An LSTM beats a GRU: **confirmed** by one run per model." in text
    assert "91.90 of `lstm_dropout` against 97.50 of `gru_dropout` (-5.60)" in text
    assert "115.00 of `lstm` against 118.00 of `gru` (-3.00)" in text
    assert "- Dropout beats none: **confirmed** by one run per model." in text
    assert "97.50 of `gru_dropout` against 118.00 of `gru` (-20.50)" in text
    assert "both over-fit: **confirmed** by one run per model." in text
    assert "`lstm`: from epoch 2, the best, to 3, the last, validation perplexity goes from 120.00 to 130.00" in text
    assert "should have been tried: **open**." in text


def test_a_whole_study_of_seeds_judges_the_conclusions_too() -> None:
    params, whole = load_params(), study()
    results, corpus = read_results(params.models), read_corpus_sizes()
    text = render(results, "ptb", corpus, {}, whole)
    assert "- Dropout beats none: **confirmed** by one run per model; **confirmed** over 3 seeds of 2 epochs.\n" in text
    assert "  - `lstm_dropout` beats `gru_dropout` by 5.97 ± 1.08 in test perplexity over 3 seeds.\n" in text
    assert "is measured on other runs, of 2 epochs" in text
    elsewhere = whole.model_copy(update={"corpus": corpus.model_copy(update={"vocabulary_size": 9})})
    for other in (study(trials=13), elsewhere, None):
        assert render(results, "ptb", corpus, {}, other) == render(results, "ptb", corpus, {})


def test_conclusions_turn_when_the_numbers_do() -> None:
    model("gru_dropout", 90.0)
    assert "An LSTM beats a GRU: **confirmed in 1 of 2 cases** by one run per model." in report()
    model("gru", 100.0)
    assert "An LSTM beats a GRU: **contradicted** by one run per model." in report()
    model("lstm", 91.9, FALLING)
    text = report()
    assert "Dropout beats none: **confirmed in 1 of 2 cases** by one run per model." in text
    assert "91.90 of `lstm_dropout` against 91.90 of `lstm` (+0.00)" in text
    assert "both over-fit: **contradicted** by one run per model." in text
    assert "`lstm`: validation perplexity is lowest at the last epoch, 3: 110.00." in text


@pytest.mark.parametrize("others_share", [0.5, 0.6])
def test_models_with_the_same_teachers_in_whatever_order_are_compared(others_share: float) -> None:
    first, second = ({"cell": "lstm", "dropout": dropout} for dropout in (0.1, 0.3))
    taught = {
        "lstm_dropout": FOUR["lstm_dropout"] | {"distillation": {"share": 0.5, "teachers": [first, second]}},
        "gru_dropout": FOUR["gru_dropout"] | {"distillation": {"share": others_share, "teachers": [second, first]}},
    }
    params(taught)
    compared = "91.90 of `lstm_dropout` against 97.50 of `gru_dropout` (-5.60)" in report()
    assert compared == (others_share == 0.5)


def test_a_fifth_model_appears_everywhere_by_its_settings_alone() -> None:
    params(FOUR | {"small": {"dropout": 0.2, "hidden_size": 8}, "mild": {"dropout": 0.1}})
    model("small", 99.0)
    model("mild", 96.0)
    text = report()
    assert "0.2" in row(text, "small")
    assert "96.00 of `mild` against 115.00 of `lstm` (-19.00)" in text
    assert "`small` against" not in text
    assert row(text, "hidden_size")[1:] == ["200"] * 4 + ["8", "200"]
    write_report()
    assert "\nsmall,3," in Path("results/report/histories.csv").read_text()
    assert "<!-- small -->" in Path("results/report/curves.svg").read_text()


def test_cells_are_compared_each_at_a_rate_of_its_own_but_alike_in_all_else() -> None:
    alike = "run per model. This holds for these settings, both at the same learning rate; other settings may give"
    assert alike in report()
    params(FOUR | {"gru": FOUR["gru"] | {"learning_rate": 0.5}, "gru_dropout": FOUR["gru_dropout"] | {"bptt": 7}})
    text = report()
    assert "115.00 of `lstm` against 118.00 of `gru`" in text
    assert "by one run per model. This holds for these settings, the GRU at half the LSTM's learning rate;" in text
    assert text.count("This holds for") == 1
    assert "against 97.50 of `gru_dropout`" not in text


def test_what_no_models_tell_apart_is_not_tested() -> None:
    params({"lstm": FOUR["lstm"]})
    text = report()
    assert "An LSTM beats a GRU: **not tested**." in text
    assert "Dropout beats none: **not tested**." in text
    assert "both over-fit: **not tested**.\n  - No GRU without dropout was trained." in text


def test_each_model_of_the_course_report_is_reached_or_missed_by_so_much() -> None:
    assert "- `lstm_dropout`: 91.90, 14.84 below its 106.74" in report()
    model("lstm_dropout", 106.744)
    assert "106.74, 0.00 below its 106.74" in report()
    model("lstm_dropout", 110.0)
    assert "110.00, **3.26 above** its 106.74" in report()


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden_size": 400, "embedding_size": 400},
        {"embedding_size": 100},
        {"num_layers": 3},
    ],
)
def test_models_of_another_size_stand_beside_no_course_report(changed: dict[str, Any]) -> None:
    params({name: model | changed for name, model in FOUR.items()})
    text = report()
    assert "course report, test" not in text
    assert "106.74" not in text
    assert "confirmed" not in text
    assert "so its figures and conclusions are left out" in text
    assert "how much another seed would change these numbers is not measured here" in text


def test_another_corpus_stands_beside_no_course_report() -> None:
    Path("results/corpus.json").write_text(
        json.dumps({"train_tokens": 20010, "valid_tokens": 4002, "test_tokens": 4003, "vocabulary_size": 81})
    )
    text = report()
    assert "106.74" not in text
    assert "confirmed" not in text
    assert "so its figures and conclusions are left out" in text
    assert "how much another seed would change these numbers is not measured here" in text


@pytest.mark.parametrize("changed", [{"cell": "gru"}, {"dropout": 0.0}])
def test_a_model_of_one_of_its_names_that_is_another_model_has_no_row_of_the_course_report(
    changed: dict[str, Any],
) -> None:
    params(FOUR | {"lstm_dropout": FOUR["lstm_dropout"] | changed})
    assert "106.74" not in report()
    params(FOUR | {"lstm_dropout": FOUR["lstm_dropout"] | {"epochs": 3, "learning_rate": 0.1}})
    assert "106.74" in report()


@pytest.mark.parametrize("kind", ["dynamic", "tempered"])
def test_perplexities_that_are_not_static_have_a_column_of_their_own(kind: str) -> None:
    assert kind not in report()
    figures = {f"valid_perplexity_{kind}": 112.5, f"test_perplexity_{kind}": 108.25}
    model("gru", TESTS["gru"], OVER_FITTING, **figures)
    assert f"test, {kind}" in report()
    assert "108.25" in row(report(), "gru")
    assert "**118.00**" in row(report(), "gru")
    assert "108.25" not in row(report(), "lstm")


def test_without_its_numbers_no_course_report_is_mentioned() -> None:
    params(course_report=None)
    text = report()
    assert "course report, test" not in text
    assert row(text, "gru")[4] == "GRU"


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("results/models/gru/history.csv", "train@gru"),
        ("results/models/gru/metrics.json", "evaluate@gru"),
        ("results/corpus.json", "preprocess"),
    ],
)
def test_a_missing_file_is_named_with_the_stage_to_run(file: str, stage: str) -> None:
    Path(file).unlink()
    with pytest.raises(UserError, match=f"{file} not found: run `dvc repro {stage}`"):
        write_report()
    assert not Path("results/report").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"best_epoch": 1}', '{"test_perplexity": "low"}'])
def test_damaged_metrics_are_refused_in_one_line(content: str) -> None:
    Path("results/models/gru/metrics.json").write_text(content)
    with pytest.raises(
        UserError, match=r"^results/models/gru/metrics\.json: .*dvc repro evaluate@gru` restores the file$"
    ):
        write_report()


def test_results_of_another_training_are_refused() -> None:
    model("gru", 118.0, OVER_FITTING, best_epoch=3)
    with pytest.raises(UserError, match=r"metrics\.json is of epoch 3, but the best in .* is 2"):
        write_report()
    model("gru", 118.0, [*OVER_FITTING, 140.0])
    with pytest.raises(UserError, match=r"ends at epoch 4, but params\.yaml asks for 3"):
        write_report()


@pytest.mark.parametrize(
    ("seconds", "text"), [(29.6, "under 1 min"), (59.6, "1 min"), (3725.4, "1 h 02 min"), (1e5, "27 h 47 min")]
)
def test_a_duration_reads_as_hours_and_minutes(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_the_command_prints_the_short_table_and_the_next_steps() -> None:
    done = python("-m", "pipeline.report")
    assert done.returncode == 0, done.stderr
    assert "gru_dropout   valid  110.00  test   97.50" in done.stdout
    for expected in ("results/report/index.html", "pipeline.ui", "dvc plots show"):
        assert expected in done.stdout


@pytest.mark.parametrize(
    ("edit", "place"),
    [(lambda: params(course_report=None), r"params\.yaml"), (lambda: model("gru", 99.0), "results/models")],
)
def test_what_is_edited_while_it_runs_is_noticed(
    edit: Callable[[], None], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.report.write_report", edit)
    monkeypatch.setattr(sys, "argv", ["report"])
    with pytest.raises(UserError, match=f"^report: {place} edited while this ran"):
        main()


def test_the_command_ends_with_one_line_when_a_file_is_missing() -> None:
    Path("results/corpus.json").unlink()
    done = python("-m", "pipeline.report")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: results/corpus.json not found")


def test_the_report_imports_neither_torch_nor_mlflow() -> None:
    heavy = python("-c", "import sys, pipeline.report; print(sorted({'torch', 'mlflow', 'dvc'} & set(sys.modules)))")
    assert heavy.stdout == "[]\n"


@pytest.mark.parametrize(
    ("template", "file", "models"),
    [("models", "report/histories.csv", set(TESTS)), ("training", "models/gru/history.csv", {None})],
)
def test_dvc_fills_the_plot_templates(template: str, file: str, models: set[str | None]) -> None:
    write_report()
    python("-m", "dvc", "init", "--no-scm", "--quiet")
    options = ["-x", "epoch", "-y", "valid_perplexity", "-t", str(ROOT / f".dvc/plots/{template}.json")]
    shown = python("-m", "dvc", "plots", "show", f"results/{file}", "--show-vega", *options).stdout
    assert "<DVC_" not in shown
    rows = json.loads(shown)["data"]["values"]
    assert len(rows) == 3 * len(models)
    assert {row.get("model") for row in rows} == models
    assert all({"epoch", "train_perplexity", "valid_perplexity", "rev"} <= set(row) for row in rows)
