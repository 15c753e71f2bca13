"""Spread over seeds: by hand, by property, and what the report says of it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from pipeline.artifacts.trials import EndedTrial, KeptStudy, read_study, write_study
from pipeline.project.console import UserError
from pipeline.reporting.conclusions import judge
from pipeline.reporting.seed_points import seed_points
from pipeline.reporting.spread import Group, difference, grouped, spread
from pipeline.settings.schema import CorpusSizes
from pipeline.sweeps.tables import difference_rows, group_metrics, spread_rows
from tests.histories import history
from tests.small import small_settings
from tests.test_figures import texts

PERPLEXITIES = st.floats(1, 1000)
BY_SEED = st.dictionaries(st.integers(1, 9), PERPLEXITIES, min_size=2, max_size=6)


def group(by_seed: dict[int, float], **settings: Any) -> Group:
    return Group("a group", small_settings(**settings), {"test": by_seed})


def test_an_interval_is_that_of_students_t() -> None:
    t_of_2 = 4.302652729749464  # its 97.5% quantile with two degrees of freedom, from a table
    found = difference(group({1: 90.0, 2: 92.0, 3: 91.0}), group({1: 95.0, 2: 96.0, 3: 97.0}, dropout=0.2), "test")
    assert found is not None
    assert (found.mean, found.n, found.paired) == (pytest.approx(-5), 3, True)
    assert found.margin == pytest.approx(t_of_2 * 1 / 3**0.5)  # the differences -5, -4, -6 deviate by 1
    # equal variances of 2, so again two degrees of freedom
    apart = difference(group({1: 90.0, 2: 92.0}), group({3: 95.0, 4: 97.0}), "test")
    assert apart is not None
    assert (apart.mean, apart.n, apart.paired) == (pytest.approx(-5), 2, False)
    assert apart.margin == pytest.approx(t_of_2 * (2 / 2 + 2 / 2) ** 0.5)


@pytest.mark.parametrize(
    "shape", [{"cell": "gru"}, {"num_layers": 1}, {"hidden_size": 8, "embedding_size": 8}, {"tied_weights": True}]
)
def test_seeds_pair_models_of_the_same_shape_only(shape: dict[str, Any]) -> None:
    by_seed, other = {1: 90.0, 2: 92.0}, {1: 95.0, 2: 97.0}  # always 5 apart: by pairs, the interval would be nothing
    paired, apart = (
        difference(group(by_seed), group(other), "test"),
        difference(group(by_seed), group(other, **shape), "test"),
    )
    assert paired is not None
    assert apart is not None
    assert (paired.paired, apart.paired) == (True, False)
    assert paired.margin == pytest.approx(0)
    assert apart.margin > 5
    assert paired.mean == pytest.approx(apart.mean)


@given(BY_SEED, BY_SEED, st.sampled_from(["lstm", "gru"]))
def test_a_difference_turned_round_is_its_negative(one: dict[int, float], other: dict[int, float], cell: str) -> None:
    found = difference(group(one), group(other, cell=cell), "test")
    turned = difference(group(other, cell=cell), group(one), "test")
    assert found is not None
    assert turned is not None
    assert (turned.mean, turned.margin) == pytest.approx((-found.mean, found.margin), rel=1e-6, abs=1e-6)


def test_too_few_values_have_no_interval_and_equal_ones_none_to_speak_of() -> None:
    assert difference(group({1: 5.0}), group({1: 4.0}), "test") is None
    assert difference(group({1: 5.0, 2: 6.0}), group({3: 4.0}), "test") is None
    assert difference(group({1: 5.0, 2: 6.0}), group({1: 5.0, 2: 6.0}), "valid") is None
    for other in ({1: 4.0, 2: 4.0}, {3: 4.0, 4: 4.0}):
        assert (found := difference(group({1: 5.0, 2: 5.0}), group(other), "test"))
        assert (found.mean, found.margin) == (1.0, 0.0)


@given(st.lists(PERPLEXITIES, min_size=1, max_size=9))
def test_a_spread_holds_its_values(values: list[float]) -> None:
    found = spread(values)
    assert found.n == len(values)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    assert (found.standard_deviation is None) == (len(values) == 1)
    assert found.standard_deviation is None or found.standard_deviation <= found.high - found.low + 1e-9


TESTS = {  # by seed
    "lstm_dropout": [91.0, 92.0, 91.5],
    "lstm": [115.0, 116.0, 115.4],
    "gru_dropout": [97.0, 97.9, 97.5],
    "gru": [115.3, 115.7, 115.5],
}


def study(tests: dict[str, list[float]] = TESTS, trials: int = 12) -> KeptStudy:
    ended = [
        EndedTrial(
            number=1 + index + len(tests) * seed,
            state="complete",
            group=name,
            picked={"model": name, "seed": seed + 1},
            settings=small_settings(
                cell=name.partition("_")[0],
                dropout=0.2 * ("dropout" in name),
                seed=seed + 1,
                epochs=2,
                hidden_size=200,
                embedding_size=200,
            ),
            history=history([test + 20, test + 4]),
            test_perplexity=test,
        )
        for index, (name, values) in enumerate(tests.items())
        for seed, test in enumerate(values)
    ]
    sizes = CorpusSizes(train_tokens=929_589, valid_tokens=73_760, test_tokens=82_430, vocabulary_size=10_000)
    ended.sort(key=lambda trial: trial.number)
    return KeptStudy(name="seeds-0123abcd", data_sha256="ab" * 32, corpus=sizes, trials=trials, ended=ended)


def test_groups_have_a_row_for_each_split_and_pair() -> None:
    groups = grouped(study().ended)
    rows = {(row["group"], row["split"]): row for row in spread_rows(groups)}
    assert len(rows) == 8
    assert rows["lstm_dropout", "test"] | {"group": "", "split": ""} == {
        "group": "", "split": "", "n": 3, "mean": 91.5, "standard_deviation": 0.5, "low": 91.0, "high": 92.0,
    }  # fmt: skip
    assert rows["lstm_dropout", "valid"]["mean"] == 95.5
    pairs = difference_rows(groups)
    assert len(pairs) == 2 * 6
    (row,) = [r for r in pairs if (r["group"], r["other"], r["split"]) == ("lstm_dropout", "gru_dropout", "test")]
    assert row["difference"] == pytest.approx(5.9667, abs=1e-4)
    assert (row["low_95"], row["high_95"]) == pytest.approx(
        (4.8829, 7.0505), abs=1e-3
    )  # Welch's, by hand: 3.96 degrees of freedom
    assert group_metrics(groups)["mean_test_perplexity/lstm_dropout"] == 91.5


@pytest.mark.usefixtures("empty_store")
def test_every_group_has_a_metric_by_a_name_that_mlflow_takes() -> None:
    settings = ", ".join(f"a_setting_of_many_{number} {number}" for number in range(19))
    groups = [Group(f"{settings}, last {last}", small_settings(), {"test": {1: 90.0, 2: 91.0}}) for last in (1, 2)]
    metrics = group_metrics(groups)
    assert len(metrics) == 4
    client = MlflowClient("sqlite:///mlflow.db")
    run_id = client.create_run(client.create_experiment("spread")).info.run_id
    for name, value in metrics.items():
        client.log_metric(run_id, name, value)
    assert client.get_run(run_id).data.metrics == metrics


def test_a_trial_that_is_not_complete_has_no_part_in_a_spread() -> None:
    kept = study()
    kept.ended[0] = kept.ended[0].model_copy(update={"state": "diverged"})
    assert spread_rows(grouped(kept.ended))[-1]["n"] == 2


def test_conclusions_are_judged_with_their_intervals() -> None:
    cells, dropout, over_fitting, _ = judge([], grouped(study().ended))
    assert cells.verdicts["over 3 seeds of 2 epochs"] == "confirmed in 1 of 2 cases"
    assert "`lstm_dropout` beats `gru_dropout` by 5.97 ± 1.08 in test perplexity over 3 seeds." in cells.evidence
    assert "`lstm` and `gru` differ in test perplexity by 0.03 ± 1.08 over 3 seeds." in cells.evidence
    assert dropout.verdicts["over 3 seeds of 2 epochs"] == "confirmed"
    assert list(over_fitting.verdicts) == [""]
    swapped = TESTS | {"lstm_dropout": TESTS["gru_dropout"], "gru_dropout": TESTS["lstm_dropout"]}
    cells = judge([], grouped(study(swapped).ended))[0]
    assert cells.verdicts["over 3 seeds of 2 epochs"] == "contradicted in 1 of 2 cases"
    assert "`gru_dropout` beats `lstm_dropout` by 5.97 ± 1.08 in test perplexity over 3 seeds." in cells.evidence
    all_swapped = swapped | {"gru": [90.9, 91.4, 92.6]}
    assert judge([], grouped(study(all_swapped).ended))[0].verdicts["over 3 seeds of 2 epochs"] == "contradicted"
    near = TESTS | {"gru_dropout": [91.2, 91.8, 91.6]}
    assert judge([], grouped(study(near).ended))[0].verdicts["over 3 seeds of 2 epochs"] == "undecided"


def test_every_seed_is_a_point() -> None:
    groups = grouped(study().ended)
    seed_points(groups, Path("groups.svg"))
    svg = Path("groups.svg").read_bytes()
    assert texts(svg) >= {*TESTS, "valid", "test", "91.50 ± 0.50", "95.50 ± 0.50"}
    assert svg.count(b"<use ") >= 2 * sum(map(len, TESTS.values()))
    seed_points(groups, Path("again.svg"))
    assert Path("again.svg").read_bytes() == svg
    seed_points(groups[:1], Path("one.svg"))


def test_a_study_reads_back_as_it_was_written() -> None:
    kept = study()
    write_study(Path("trials.jsonl"), kept)
    assert read_study(Path("trials.jsonl")) == kept
    assert len(Path("trials.jsonl").read_text().splitlines()) == 13


def test_a_study_that_was_altered_is_one_line() -> None:
    path = Path("trials.jsonl")
    assert read_study(path) is None
    for nothing in ("", "\n"):
        path.write_text(nothing)
        assert read_study(path) is None
    write_study(path, study())
    lines = path.read_text().splitlines()
    for number, line in ((1, "{}"), (3, lines[2][:-5]), (13, lines[12].replace("complete", "compleat"))):
        path.write_text("\n".join([*lines[: number - 1], line, *lines[number:]]))
        with pytest.raises(UserError, match=rf"^trials\.jsonl, line {number}: .*: restore the file with git$"):
            read_study(path)
    path.write_text("\n".join([*lines[:5], *lines[4:]]))  # both sides of a conflict in git
    with pytest.raises(UserError, match=r"^trials\.jsonl, line 6: trial 4 is out of order: restore the file with git$"):
        read_study(path)
