"""The pages for readers: every perplexity in them is in a file that is kept, and every link leads somewhere."""

import csv
import json
import re
import runpy
import subprocess
from collections import defaultdict
from contextlib import redirect_stdout
from io import StringIO
from itertools import combinations, product
from pathlib import Path

import pytest

from pipeline.artifacts.dvc_lock import dvc_md5
from pipeline.artifacts.history import best_epoch, read_history
from pipeline.artifacts.weights import load_weights
from pipeline.lm.settings import Settings
from pipeline.settings.params import parse_params, parse_yaml
from pipeline.settings.recipes import read_base
from tests.small import KEPT_SETTINGS, ROOT

EXPERIMENTS = ROOT / "docs/experiments"
CARD = "results/reference/README.md"
PAGES = ["README.md", "docs/corpora.md", "docs/recipes.md", "docs/experiments.md", "docs/sweeps.md", CARD]
DOCS = sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md"))
LINKED = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", CARD, *DOCS]
KEPT = re.compile(r"history|metrics|weights|not kept|[0-9a-f]{7}:docs/recipes/.*\.json")
PERPLEXITY = re.compile(r"(?<![\d.+-])(\d{2,4}\.\d{2})(?![\d.])")  # without a sign: one with is a difference
SPLITS = ("train", "valid", "test")


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


TRIALS = table(EXPERIMENTS / "trials.csv")
OF_RUNS = [row for row in TRIALS if row["kept"] in ("history", "metrics")]


def perplexities(text: str) -> set[str]:
    return {number for number in PERPLEXITY.findall(text) if 20 <= float(number) <= 2000}


def by_run() -> dict[str, set[str]]:
    """The perplexities of every trial and of every run of a recipe, by its id."""
    runs = defaultdict(set)
    for row in TRIALS:
        runs[row["id"]] |= {row[split] for split in SPLITS}
    for metrics in (ROOT / "docs/recipes").glob("*-*.json"):
        best = best_epoch(read_history(metrics.with_suffix(".csv")))
        figures = [value for name, value in json.loads(metrics.read_text()).items() if "perplexity" in name]
        runs[metrics.stem] |= {f"{value:.2f}" for value in (*figures, best.train_perplexity)}
    return runs


def kept() -> set[str]:
    """Every perplexity that a page may give."""
    figures = set().union(*by_run().values())
    others = (EXPERIMENTS / f"{name}.csv" for name in ("published", "word_language_model"))
    for path in (*others, *(ROOT / "results/sweeps").glob("*/*.csv")):
        rows = [value for row in table(path) for name, value in row.items() if re.search("valid|test|mean|perp", name)]
        figures |= {f"{float(value):.2f}" for value in rows if value}
    course_report = parse_params(parse_yaml(read_base(ROOT), Path("params.yaml"))).report.course_report or {}
    figures |= {f"{getattr(of, split):.2f}" for of in course_report.values() for split in SPLITS}
    tests = [json.loads(path.read_text())["test_perplexity"] for path in (ROOT / "docs/recipes").glob("default-*.json")]
    return figures | {f"{abs(round(one, 2) - round(other, 2)):.2f}" for one, other in combinations(tests, 2)}


@pytest.mark.parametrize("page", PAGES)
def test_every_perplexity_of_a_page_is_kept(page: str) -> None:
    assert perplexities((ROOT / page).read_text()) - kept() == set()


def test_what_the_picture_of_the_recipes_has_of_others_is_kept() -> None:
    others = runpy.run_path(str(ROOT / "docs/recipes/draw.py"))["OTHERS"]
    assert {f"{test:.2f}" for test in others.values()} <= kept()


def test_a_row_of_a_table_with_an_id_has_the_figures_of_that_run() -> None:
    """Or, with the end of an id, those of all that end so; beside them what other columns compare it with."""
    runs, comparisons = (
        by_run(),
        {f"zeroed-{run}": f"default-{run}" for run in ("lstm_dropout", "lstm", "gru_dropout", "gru")},
    )
    rows = re.findall(r"^\| `(\S+)` \|(.*)\|$", (EXPERIMENTS.with_suffix(".md")).read_text(), re.MULTILINE)
    assert len(rows) > 80
    for name, cells in rows:
        own = {run for run in runs if run == name or (name.startswith("-") and run.endswith(name))}
        assert own, f"docs/experiments.md: no trial {name}"
        figures = set().union(*(runs[run] for run in own), runs.get(comparisons.get(name, ""), set()))
        if name.startswith("zeroed-"):
            cells = cells.rpartition("|")[0]  # the last is the course report's
        assert perplexities(cells) <= figures, name


@pytest.mark.parametrize("row", OF_RUNS, ids=lambda row: f"{row['id']}-{row['evaluation'] or row['epoch']}")
def test_a_trial_is_as_its_kept_history_and_metrics_say(row: dict[str, str]) -> None:
    path = EXPERIMENTS / "runs" / f"{row['id']}.csv"
    given, found = {split: row[split] for split in SPLITS if row[split]}, {}
    if row["kept"] == "history":
        epoch = read_history(path)[int(row["epoch"]) - 1]
        found = {"train": epoch.train_perplexity, "valid": epoch.valid_perplexity}
    if "test" in given:
        metrics = json.loads(path.with_suffix(".json").read_text())
        kind = "_dynamic" if row["evaluation"].startswith("dynamic") else ""
        found |= {split: metrics[f"{split}_perplexity{kind}"] for split in ("valid", "test")}
        assert row["kept"] == "metrics" or metrics["best_epoch"] == int(row["epoch"])
    assert (
        given.items()
        <= {split: f"{figure:.2f}" if figure < 1e6 else f"{figure:.2e}" for split, figure in found.items()}.items()
    )


def test_every_trial_says_what_is_kept_of_it_and_every_kept_run_is_a_trial() -> None:
    assert [row["id"] for row in TRIALS if not KEPT.fullmatch(row["kept"])] == []
    moments = [(row["id"], row["epoch"], row["evaluation"]) for row in TRIALS]
    assert len(set(moments)) == len(moments)
    assert {path.stem for path in (EXPERIMENTS / "runs").iterdir()} == {row["id"] for row in OF_RUNS}


def test_every_trial_is_on_a_page() -> None:
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    for row in TRIALS:
        figures = {row[split] for split in SPLITS} - {""}
        assert f"`{row['id']}`" in text or figures & perplexities(text), f"{row['id']} is on no page"


@pytest.mark.parametrize("row", [row for row in TRIALS if ":" in row["kept"]], ids=lambda row: row["id"])
def test_what_is_kept_in_git_is_there(row: dict[str, str]) -> None:
    shown = subprocess.run(["git", "show", row["kept"]], cwd=ROOT, capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip("needs the whole of git's history, which a ZIP and a shallow clone lack")
    kind = "_dynamic" if row["evaluation"].startswith("dynamic") else ""
    metrics = json.loads(shown.stdout)
    assert [row[split] for split in ("valid", "test")] == [
        f"{metrics[f'{split}_perplexity{kind}']:.2f}" for split in ("valid", "test")
    ] or not row["valid"]


@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        *product(["default", "best"], ["lstm_dropout", "lstm", "gru_dropout", "gru"]),
        *product(["wikitext2"], ["lstm_dropout", "gru_dropout"]),
    ],
)
def test_the_model_card_has_the_figures_and_the_file_of_each_model(recipe: str, model: str) -> None:
    metrics = json.loads((ROOT / f"docs/recipes/{recipe}-{model}.json").read_text())
    train, valid, test = (f"{metrics[f'{split}_perplexity']:.2f}" for split in SPLITS)
    name = f"`{model}`" if recipe == "default" else f"`{recipe}`: `{model}`"
    row = rf"\| {name} \| \[\w+…\]\((files/md5/(\w+)/(\w+))\) \| (.*) \| ([\d.]+) \|"
    path, start, rest, figures, megabytes = re.search(row, (ROOT / CARD).read_text()).groups()
    assert figures == f"{train} | {valid} | **{test}** | {metrics['parameters']:,}"
    weights = ROOT / "results/reference" / path
    assert dvc_md5(weights) == start + rest
    assert f"{weights.stat().st_size / 1e6:.1f}" == megabytes
    assert load_weights(weights).settings == Settings.model_validate(KEPT_SETTINGS[f"{recipe}-{model}"])


def test_the_lines_of_python_do_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights of the reference run, whatever has been trained since."""
    code, printed = re.findall(r"^```(?:python)?\n(.*?)^```$", (ROOT / "docs/python.md").read_text(), re.M | re.S)
    folder = tmp_path / "results/models/lstm_dropout"
    folder.mkdir(parents=True)
    file = re.search(r"`lstm_dropout` \| \[\w+…\]\((\S+)\)", (ROOT / CARD).read_text())[1]
    (folder / "model.safetensors").symlink_to(ROOT / "results/reference" / file)
    monkeypatch.chdir(tmp_path)
    with redirect_stdout(StringIO()) as out:
        exec(code, {})
    said, shown = ([line.split() for line in text.splitlines()] for text in (out.getvalue(), printed))
    assert [words for _, *words in said[:2]] == [words for _, *words in shown[:2]]
    assert [float(line[0]) for line in said[:2]] == pytest.approx([float(line[0]) for line in shown[:2]], rel=0.01)
    assert [line[:2] for line in said[2:]] == [line[:2] for line in shown[2:]]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link can lead to in a page: its headings as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED)
def test_every_link_leads_somewhere(page: str) -> None:
    page = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            there = page.parent / file if file else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_the_index_of_the_docs_has_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert [page for page in DOCS if f"({Path(page).name})" not in index and page != "docs/README.md"] == []
