"""The conclusions of the course report, each checked against our own numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pipeline.lm.settings import Settings
from pipeline.reporting.results import Result
from pipeline.reporting.spread import Difference, Group, difference

ONE_RUN = "by one run per model"


class Trained(Protocol):
    """Anything that has been trained with settings: a model, or a group of models that differ in their seed."""

    @property
    def settings(self) -> Settings: ...


T = TypeVar("T", bound=Trained)


@dataclass(frozen=True)
class Conclusion:
    """A claim of the course report, our verdicts on it, and the numbers behind them, one sentence each.

    verdicts: by their basis, such as `over 3 seeds`
    condition: a sentence on when the verdicts hold
    """

    claim: str
    verdicts: Mapping[str, str]
    evidence: list[str]
    condition: str = ""


def judge(results: Sequence[Result], groups: Sequence[Group] = ()) -> list[Conclusion]:
    """Check each conclusion against the results; the models it is about are found by their settings.

    groups: models trained from several seeds
    """
    return [
        # Each cell may train at the rate that suits it.
        _better("An LSTM beats a GRU", results, groups, ("cell", "learning_rate"), lambda one: one.cell == "lstm"),
        _better("Dropout beats none", results, groups, ("dropout",), lambda one: one.drops),
        _over_fitting(results),
        Conclusion(
            claim="More schedules and optimizers should have been tried",
            verdicts={"": "open"},
            evidence=["These runs cannot settle it: that would take models that differ in nothing else."],
        ),
    ]


def controlled_pairs(
    trained: Sequence[T], free: Sequence[str], favoured: Callable[[Settings], bool]
) -> list[tuple[T, T]]:
    """Pairs (favoured, other) of models that agree in all settings except the free ones."""
    return [
        (one, other)
        for one in trained
        for other in trained
        if favoured(one.settings) and not favoured(other.settings) and _alike_but(free, one.settings, other.settings)
    ]


def _alike_but(free: Sequence[str], one: Settings, other: Settings) -> bool:
    one = one.model_copy(update={setting: getattr(other, setting) for setting in free})
    return _with_sorted_teachers(one) == _with_sorted_teachers(other)


def _with_sorted_teachers(settings: Settings) -> Settings:
    """Teachers predict together, so their order changes nothing but rounding."""
    if not settings.distillation:
        return settings
    teachers = sorted(settings.teachers, key=lambda teacher: teacher.model_dump_json())
    return settings.model_copy(update={"distillation": settings.distillation.model_copy(update={"teachers": teachers})})


def _better(
    claim: str,
    results: Sequence[Result],
    groups: Sequence[Group],
    free: Sequence[str],
    favoured: Callable[[Settings], bool],
) -> Conclusion:
    pairs = controlled_pairs(results, free, favoured)
    if pairs:
        tests = [tuple(round(model.metrics.test_perplexity, 2) for model in pair) for pair in pairs]
        verdicts = {ONE_RUN: _verdict([ours < theirs for ours, theirs in tests])}
        evidence = [
            f"Test perplexity {ours:.2f} of `{one.name}` against {theirs:.2f} of `{other.name}` ({ours - theirs:+.2f})."
            for (one, other), (ours, theirs) in zip(pairs, tests, strict=True)
        ]
    else:
        verdicts = {"": "not tested"}
        evidence = [f"No two models differ in `{free[0]}` alone."]
    compared = [
        (one, other, found)
        for one, other in controlled_pairs(groups, (*free, "seed"), favoured)
        if (found := difference(other, one, "test"))
    ]
    if compared:
        seeds = min(found.n for _, _, found in compared)
        verdicts[f"over {seeds} seeds of {compared[0][0].settings.epochs} epochs"] = _verdict_over_seeds(
            [found for _, _, found in compared]
        )
        evidence += [_in_words(one.name, other.name, found) for one, other, found in compared]
    settings = [(one.settings, other.settings) for one, other in pairs]
    settings += [(one.settings, other.settings) for one, other, _ in compared]
    return Conclusion(claim, verdicts, evidence, _condition(settings))


def _condition(pairs: Sequence[tuple[Settings, Settings]]) -> str:
    """What else models of different cells were allowed to differ in."""
    ratios = {other.learning_rate / one.learning_rate for one, other in pairs if one.cell != other.cell}
    if not ratios:
        return ""
    by = f"{min(ratios):g} times" if len(ratios) == 1 else f"{min(ratios):g} to {max(ratios):g} times"
    rates = f"the GRU at {'half' if ratios == {0.5} else by} the LSTM's learning rate"
    if ratios == {1}:
        rates = "both at the same learning rate"
    return f"This holds for these settings, {rates}; other settings may give another verdict."


def _verdict_over_seeds(found: Sequence[Difference]) -> str:
    """Only differences whose interval excludes zero count; the others are undecided."""
    cases = {
        "confirmed": sum(one.mean > one.margin for one in found),
        "contradicted": sum(one.mean < -one.margin for one in found),
    }
    verdict = next((verdict for verdict, number in cases.items() if number), "undecided")
    some = 0 < cases.get(verdict, 0) < len(found)
    return f"{verdict} in {cases[verdict]} of {len(found)} cases" if some else verdict


def _in_words(one: str, other: str, found: Difference) -> str:
    """found: the other's test perplexity minus that of `one`"""
    over = f"over {found.n} seeds"
    if abs(found.mean) <= found.margin:
        return f"`{one}` and `{other}` differ in test perplexity by {found.mean:.2f} ± {found.margin:.2f} {over}."
    better, worse = (one, other) if found.mean > 0 else (other, one)
    return f"`{better}` beats `{worse}` by {abs(found.mean):.2f} ± {found.margin:.2f} in test perplexity {over}."


def _over_fitting(results: Sequence[Result]) -> Conclusion:
    claim = "Without dropout, LSTM and GRU both over-fit"
    bare = [result for result in results if not result.settings.drops]
    missing = {"lstm", "gru"} - {result.settings.cell for result in bare}
    if missing:
        without = " and ".join(cell.upper() for cell in sorted(missing))
        return Conclusion(claim, {"": "not tested"}, [f"No {without} without dropout was trained."])
    verdict = _verdict([_over_fits(result) for result in bare])
    return Conclusion(claim, {ONE_RUN: verdict}, [_after_the_best(result) for result in bare])


def _over_fits(result: Result) -> bool:
    best, last = result.best, result.last
    return last.valid_perplexity > best.valid_perplexity and last.train_perplexity < best.train_perplexity


def _after_the_best(result: Result) -> str:
    """Where validation and training perplexity went after the best epoch."""
    best, last = result.best, result.last
    if best == last:
        lowest = f"{last.valid_perplexity:.2f}"
        return f"`{result.name}`: validation perplexity is lowest at the last epoch, {last.epoch}: {lowest}."
    return (
        f"`{result.name}`: from epoch {best.epoch}, the best, to {last.epoch}, the last, validation perplexity goes "
        f"from {best.valid_perplexity:.2f} to {last.valid_perplexity:.2f} and training perplexity from "
        f"{best.train_perplexity:.2f} to {last.train_perplexity:.2f}."
    )


def _verdict(agreements: Sequence[bool]) -> str:
    if all(agreements):
        return "confirmed"
    return f"confirmed in {sum(agreements)} of {len(agreements)} cases" if any(agreements) else "contradicted"
