"""The report's page: whole in one file, and in a browser the figures of the results."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Locator, expect

from pipeline.artifacts.metrics import Metrics
from pipeline.report import render
from pipeline.reporting.page import page
from pipeline.reporting.results import Result
from pipeline.reporting.style import COLORS, DARK
from pipeline.settings.schema import CorpusSizes, Perplexities
from tests.histories import history
from tests.small import ROOT, small_settings

if TYPE_CHECKING:
    from tests.browser import Visit

CORPUS = CorpusSizes(train_tokens=929_589, valid_tokens=73_760, test_tokens=82_430, vocabulary_size=10_000)
COURSE_REPORT = {"lstm": Perplexities(train=90.19, valid=149.03, test=143.03)}


def result(name: str, valid: list[float]) -> Result:
    best = min(valid)
    figures = Metrics(
        train_perplexity=60, valid_perplexity=best, test_perplexity=best, best_epoch=1 + valid.index(best), parameters=9
    )
    return Result(name, small_settings(hidden_size=200, embedding_size=200), figures, history(valid))


RESULTS = [result("lstm", [150.0 + abs(epoch - 15) for epoch in range(40)]), result("gru", [200.0, 160.25, 170.0])]


def write_page(results: list[Result] = RESULTS) -> Path:
    path = Path("index.html")
    path.write_text(page(render(results, "ptb", CORPUS, COURSE_REPORT), results, COURSE_REPORT))
    return path


def test_the_committed_page_is_small_enough_for_git() -> None:
    assert 50_000 < (ROOT / "results/report/index.html").stat().st_size < 400_000


def test_text_that_looks_like_html_stays_text() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    text = f"# Models\n\n{evil}\n\n| {evil} |\n| --- |\n| {evil} |\n"
    plain = page("# Models\n", [], {})
    made = page(text, [result(evil, [2.0])], {})
    assert made.count("<script") == plain.count("<script")
    assert "<img" not in made


@pytest.fixture
def shown(visit: "Visit") -> "Visit":
    """The page of two models in a browser, which may show no error and ask for nothing elsewhere."""
    visit.page.goto(write_page().absolute().as_uri())
    return visit


def cells(visit: "Visit", model: str) -> Locator:
    return visit.page.locator("#figures tbody tr", has_text=model).locator("td")


def hover(visit: "Visit", share: float) -> None:
    """Move the mouse to a place on the first chart, from 0 at its left end to 1 at its right one."""
    chart = visit.page.locator("#comparison .u-over")
    box = chart.bounding_box()
    assert box
    chart.hover(position={"x": share * box["width"], "y": box["height"] / 2})


PIXELS = """(color) => {
    const canvas = document.querySelector("#comparison canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const wanted = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
    let found = 0;
    for (let at = 0; at < data.length; at += 4) found += wanted.every((one, i) => data[at + i] === one);
    return found;
}"""


def expect_drawn(visit: "Visit", *colors: str, absent: tuple[str, ...] = (), more_than: int = 50) -> None:
    """Wait until the first chart has more than so many pixels of each of the colors, and none of the absent ones."""
    visit.page.wait_for_function(
        f"""([drawn, absent, moreThan]) =>
            drawn.every((color) => ({PIXELS})(color) > moreThan) && !absent.some({PIXELS})""",
        arg=[colors, absent, more_than],
    )


@pytest.mark.browser
def test_the_page_tells_the_figures_at_the_best_epochs_and_under_the_cursor(shown: "Visit") -> None:
    expect(cells(shown, "lstm")).to_have_text(["150.00", "385.00", "149.03", "0.0625"])
    expect(cells(shown, "gru")).to_have_text(["160.25", "399.00", "-", "0.5"])
    hover(shown, 0.99)
    expect(shown.page.locator("#epoch")).to_have_text("epoch 40")
    expect(cells(shown, "lstm")).to_have_text(["174.00", "361.00", "149.03", "0.025"])
    expect(cells(shown, "gru")).to_have_text(["-", "-", "-", "-"])
    assert (shown.errors, shown.asked_elsewhere) == ([], [])


@pytest.mark.browser
def test_curves_are_switched_on_and_off_by_model_and_by_quantity(shown: "Visit") -> None:
    expect_drawn(shown, *COLORS[:2])
    shown.page.get_by_label("gru").uncheck()
    expect_drawn(shown, COLORS[0], absent=(COLORS[1],))
    shown.page.get_by_label("valid", exact=True).uncheck()
    shown.page.get_by_label("course report, valid", exact=True).uncheck()
    expect_drawn(shown, absent=(COLORS[0],))
    shown.page.get_by_label("train", exact=True).check()
    expect_drawn(shown, COLORS[0])
    shown.page.get_by_label("train", exact=True).uncheck()
    expect_drawn(shown, absent=(COLORS[0],))
    assert shown.errors == []


@pytest.mark.browser
def test_the_page_is_dark_where_the_system_is_and_no_wider_than_a_telephone(shown: "Visit") -> None:
    shown.page.emulate_media(color_scheme="dark")
    shown.page.set_viewport_size({"width": 390, "height": 800})
    shown.page.wait_for_function("document.querySelector('.uplot').clientWidth < 390")
    expect_drawn(shown, DARK[COLORS[0]], absent=(COLORS[0],))
    expect(shown.page.locator("body")).to_have_css("background-color", "rgb(13, 17, 23)")
    assert shown.page.evaluate("document.documentElement.scrollWidth") == 390
    assert shown.errors == []


@pytest.mark.browser
def test_another_commits_curves_are_laid_over(shown: "Visit") -> None:
    Path("before.csv").write_text("model,epoch,valid_perplexity\ngru,1,300.5\ngru,2,250.25\nother,1,9\n")
    Path("wrong.csv").write_text("a,b\n1,2\n")
    chooser = shown.page.locator("#before")
    said = shown.page.locator("#said")
    chooser.set_input_files("wrong.csv")
    expect(said).to_contain_text("choose a histories.csv")
    chooser.set_input_files("before.csv")
    expect(said).to_have_text("before.csv: gru")
    expect(cells(shown, "gru").nth(3)).to_have_text("250.25")
    expect(cells(shown, "lstm").nth(3)).to_have_text("-")
    assert shown.errors == []


@pytest.mark.browser
@pytest.mark.parametrize("valid", [[100.0], [1e30, 50.0], [1.0, 1.0]])
def test_unusual_histories_are_shown(valid: list[float], visit: "Visit") -> None:
    visit.page.goto(write_page([result("lstm", valid)]).absolute().as_uri())
    expect_drawn(visit, COLORS[0], more_than=10)
    expect(cells(visit, "lstm").first).to_have_text(f"{min(valid):.2f}")
    assert visit.errors == []


@pytest.mark.browser
def test_the_committed_page_has_the_figures_of_the_committed_results(visit: "Visit") -> None:
    visit.page.goto((ROOT / "results/report/index.html").as_uri())
    for line in visit.page.locator("#figures tbody tr").all():
        model = line.locator("th").inner_text().strip()
        metrics = json.loads((ROOT / f"results/models/{model}/metrics.json").read_text())
        assert line.locator("td").first.inner_text() == f"{metrics['valid_perplexity']:.2f}"
        row = visit.page.locator("tr", has=visit.page.locator("code", has_text=re.compile(f"^{model}$"))).first
        assert f"{metrics['test_perplexity']:.2f}" in row.inner_text()
    assert visit.page.locator("#figures tbody tr").count() > 0
    assert (visit.errors, visit.asked_elsewhere) == ([], [])
