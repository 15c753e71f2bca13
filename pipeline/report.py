"""Compare all trained models: a table, figures, and the course report's conclusions checked against our numbers."""

import argparse
from collections.abc import Sequence
from datetime import datetime

from pipeline.artifacts.history import history_path, write_histories
from pipeline.artifacts.metrics import (
    metrics_path,
    read_corpus_sizes,
    worse_than_guessing,
    write_valid_perplexities,
)
from pipeline.artifacts.trials import SEEDS, KeptStudy, read_study
from pipeline.project.console import command_hint, run, say, warn
from pipeline.project.files import CORPUS_METRICS, MODELS, PARAMS, REPORT, atomic_write, sha256
from pipeline.project.inputs import FixedInputs, Inputs
from pipeline.reporting import curves
from pipeline.reporting.conclusions import Conclusion, judge
from pipeline.reporting.course_report import LEFT_OUT, SOURCE, CourseReport, comparable, figures_beside, is_of_the_size
from pipeline.reporting.page import page
from pipeline.reporting.results import NONE, Result, read_results, results_table, table
from pipeline.reporting.spread import Group, grouped
from pipeline.settings.overlay import as_text, flattened
from pipeline.settings.params import load_params
from pipeline.settings.schema import CorpusSizes
from pipeline.tracking.notes import describe_experiment


def write_report() -> list[Result]:
    """Write results/report and the metric that DVC shows. Raises UserError."""
    params = load_params()
    if misnamed := params.misnamed():
        warn(misnamed)
    results, corpus = read_results(params.models), read_corpus_sizes()
    course_report = params.report.course_report or {}
    text = render(results, params.preprocess.corpus, corpus, course_report, read_study(SEEDS))
    histories = {result.name: result.history for result in results}
    curves.comparison(histories, REPORT / "comparison.svg")
    curves.curves(histories, REPORT / "curves.svg")
    curves.learning_rates(histories, REPORT / "learning_rates.svg")
    write_histories(REPORT / "histories.csv", histories)
    write_valid_perplexities({result.name: result.metrics.valid_perplexity for result in results})
    with atomic_write(REPORT / "report.md") as file:
        file.write(text)
    with atomic_write(REPORT / "index.html") as file:
        file.write(page(text, results, figures_beside(results, corpus, course_report)))
    return results


def render(
    results: Sequence[Result],
    name: str,
    corpus: CorpusSizes,
    course_report: CourseReport,
    seeds: KeptStudy | None = None,
) -> str:
    """The report in Markdown, the same text for the same results.

    name: of the corpus
    seeds: the study of how much other seeds change results
    """
    course_report, judged = figures_beside(results, corpus, course_report), comparable(results, corpus)
    groups = _comparable_groups(seeds, corpus) if judged else []
    finished_at = max(result.last.finished_at for result in results)
    blocks = [
        f"# Language models on `{name}`, side by side",
        f"Corpus: {corpus.train_tokens:,} tokens to train on, {corpus.valid_tokens:,} to validate, "
        f"{corpus.test_tokens:,} to test; a vocabulary of {corpus.vocabulary_size:,}. "
        f"The last training finished on {day(finished_at)}.",
        "## Results",
        results_table(results, course_report),
        "Perplexities are those of the weights of the best epoch, the one with the lowest validation perplexity. Each "
        f"model was trained once; how much another seed would change these numbers is {_measured(groups)}.",
        *_worse_than_guessing(results, corpus.vocabulary_size),
        *_gpus(results),
        *_beside_the_course_report(results, course_report),
        "## Curves",
        "![Validation perplexity by epoch of all models](comparison.svg)",
        "![Training and validation perplexity by epoch, a panel for each model](curves.svg)",
        "Training perplexity is measured while training, with dropout, so it can exceed validation perplexity. The "
        "first epochs may start above the frame.",
        "![Learning rate by epoch](learning_rates.svg)",
        "## The conclusions of the course report",
        "\n".join(_conclusion_item(conclusion) for conclusion in judge(judged, groups)) if judged else LEFT_OUT,
        "## Settings",
        *_settings(results),
    ]
    return "\n\n".join(blocks) + "\n"


def _worse_than_guessing(results: Sequence[Result], words: int) -> list[str]:
    nonsense = {result.name: worse_than_guessing(result.metrics.figures(), words) for result in results}
    return [f"`{name}` is **{how}**." for name, how in nonsense.items() if how]


def _gpus(results: Sequence[Result]) -> list[str]:
    """A sentence on each GPU that models were trained on; all others were trained on a CPU."""
    models: dict[str, list[str]] = {}
    for result in results:
        if result.metrics.gpu:
            models.setdefault(result.metrics.gpu, []).append(f"`{result.name}`")
    return [f"Trained on {gpu}: {', '.join(names)}." for gpu, names in models.items()]


def _beside_the_course_report(results: Sequence[Result], course_report: CourseReport) -> list[str]:
    """Each model's test perplexity against that of the course report, rounded to two decimals as there."""
    lines = []
    for result in results:
        if result.name in course_report:
            ours, theirs = round(result.metrics.test_perplexity, 2), course_report[result.name].test
            verdict = f"{theirs - ours:.2f} below" if ours <= theirs else f"**{ours - theirs:.2f} above**"
            lines.append(f"- `{result.name}`: {ours:.2f}, {verdict} its {theirs:.2f}")
    return [f"Test perplexity against the course report's ({SOURCE}):", "\n".join(lines)] if lines else []


def _comparable_groups(seeds: KeptStudy | None, corpus: CorpusSizes) -> list[Group]:
    """Empty until all trials of the study have ended."""
    if not seeds or not seeds.complete or seeds.corpus != corpus:
        return []
    return [group for group in grouped(seeds.ended) if is_of_the_size(group.settings)]


def _measured(groups: Sequence[Group]) -> str:
    if not groups:
        return "not measured here"
    return f"measured on other runs, of {groups[0].settings.epochs} epochs (see the conclusions below)"


def _conclusion_item(conclusion: Conclusion) -> str:
    verdicts = "; ".join(f"**{verdict}** {basis}".rstrip() for basis, verdict in conclusion.verdicts.items())
    bullet = f"- {conclusion.claim}: {verdicts}. {conclusion.condition}".rstrip()
    return "\n".join([bullet, *(f"  - {sentence}" for sentence in conclusion.evidence)])


def _settings(results: Sequence[Result]) -> list[str]:
    """The settings that all models share, listed once, and a table of the others; without those that are off in all."""
    models = {
        result.name: {key: as_text(value) for key, value in flattened(result.settings).items()} for result in results
    }
    names = list(dict.fromkeys(name for result in results for name in flattened(result.settings, essential=True)))
    values = {name: [settings.get(name, NONE) for settings in models.values()] for name in names}
    shared = [f"`{name}` {values[name][0]}" for name in names if len(set(values[name])) == 1]
    differing = [[f"`{name}`", *values[name]] for name in names if len(set(values[name])) > 1]
    blocks = [f"Shared by all models: {', '.join(shared)}."]
    if differing:
        blocks.append(table(["", *(f"`{name}`" for name in models)], differing))
    return blocks


def day(finished_at: str) -> str:
    """The date of a history's timestamp: 2026-11-26T17:19:21Z is on `26 November 2026`."""
    return f"{datetime.fromisoformat(finished_at):%-d %B %Y}"


def inputs() -> Inputs:
    """Everything that the report depends on, in its current state."""
    params = load_params()
    files = [path for name in params.models for path in (history_path(name), metrics_path(name))]
    return {
        PARAMS.name: (params.preprocess, params.train, params.models, params.report),
        MODELS.as_posix(): [sha256(path) if path.exists() else None for path in files],
        **{path.as_posix(): sha256(path) if path.exists() else None for path in (CORPUS_METRICS, SEEDS)},
    }


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.report", description=__doc__).parse_args()
    with FixedInputs("report", inputs):
        results = write_report()
    describe_experiment()
    width = max(len(result.name) for result in results)
    for result in results:
        metrics = result.metrics
        say(f"{result.name:{width}}  valid {metrics.valid_perplexity:7.2f}  test {metrics.test_perplexity:7.2f}")
    compare = command_hint("ui", "python -m pipeline.ui")
    say(f"report: {REPORT / 'index.html'}; compare runs with {compare}, draw the curves with `dvc plots show`")


if __name__ == "__main__":
    run(main)
