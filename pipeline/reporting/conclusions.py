"""The conclusions that were published with the recipe, each checked against our own numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.lm.settings import Settings
from pipeline.reporting.results import Result


@dataclass(frozen=True)
class Conclusion:
    """A published claim, our verdict on it, and the numbers behind the verdict, one sentence each."""

    claim: str
    verdict: str
    evidence: list[str]


def judge(results: Sequence[Result]) -> list[Conclusion]:
    """Check every published conclusion against the results; which models it concerns follows from their settings."""
    return [
        # Each cell may train at the rate that suits it.
        _better("An LSTM beats a GRU", results, ("cell", "learning_rate"), lambda settings: settings.cell == "lstm"),
        _better("Dropout beats none", results, ("dropout",), lambda settings: settings.drops),
        _over_fitting(results),
        Conclusion(
            claim="More schedules and optimizers should have been tried",
            verdict="open",
            evidence=["These runs cannot settle it: it takes models in `params.yaml` that differ in just that."],
        ),
    ]


def controlled_pairs(
    results: Sequence[Result], free: Sequence[str], favoured: Callable[[Settings], bool]
) -> list[tuple[Result, Result]]:
    """Pairs (favoured, other) of models that agree in all settings except the free ones."""
    return [
        (one, other)
        for one in results
        for other in results
        if favoured(one.settings) and not favoured(other.settings) and _alike_but(free, one.settings, other.settings)
    ]


def _alike_but(free: Sequence[str], one: Settings, other: Settings) -> bool:
    return one.model_copy(update={setting: getattr(other, setting) for setting in free}) == other


def _better(
    claim: str, results: Sequence[Result], free: Sequence[str], favoured: Callable[[Settings], bool]
) -> Conclusion:
    pairs = controlled_pairs(results, free, favoured)
    if not pairs:
        return Conclusion(claim, "not tested", [f"No two models differ in `{free[0]}` alone."])
    tests = [(round(one.metrics.test_perplexity, 2), round(other.metrics.test_perplexity, 2)) for one, other in pairs]
    evidence = [
        f"Test perplexity {ours:.2f} of `{one.name}` against {theirs:.2f} of `{other.name}` ({ours - theirs:+.2f})."
        for (one, other), (ours, theirs) in zip(pairs, tests, strict=True)
    ]
    return Conclusion(claim, _verdict([ours < theirs for ours, theirs in tests]), evidence)


def _over_fitting(results: Sequence[Result]) -> Conclusion:
    claim = "Without dropout, LSTM and GRU both over-fit"
    bare = [result for result in results if not result.settings.drops]
    missing = {"lstm", "gru"} - {result.settings.cell for result in bare}
    if missing:
        without = " and ".join(cell.upper() for cell in sorted(missing))
        return Conclusion(claim, "not tested", [f"No {without} without dropout was trained."])
    return Conclusion(claim, _verdict([_over_fits(result) for result in bare]), [_course(result) for result in bare])


def _over_fits(result: Result) -> bool:
    best, last = result.best, result.last
    return last.valid_perplexity > best.valid_perplexity and last.train_perplexity < best.train_perplexity


def _course(result: Result) -> str:
    """Where validation and training perplexity went after the best epoch."""
    best, last = result.best, result.last
    if best == last:
        return (
            f"`{result.name}`: valid perplexity is lowest at the last epoch, {last.epoch}: {last.valid_perplexity:.2f}."
        )
    return (
        f"`{result.name}`: from epoch {best.epoch}, the best, to {last.epoch}, the last, valid perplexity goes from "
        f"{best.valid_perplexity:.2f} to {last.valid_perplexity:.2f} and train perplexity from "
        f"{best.train_perplexity:.2f} to {last.train_perplexity:.2f}."
    )


def _verdict(agreements: Sequence[bool]) -> str:
    if all(agreements):
        return "confirmed"
    return f"confirmed in {sum(agreements)} of {len(agreements)} cases" if any(agreements) else "contradicted"
