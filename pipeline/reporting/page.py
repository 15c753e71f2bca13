"""The report as a page for a browser: its text and, instead of figures, curves to hover over and switch on and off."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markupsafe import Markup

from pipeline.reporting.course_report import CourseReport
from pipeline.reporting.results import Result
from pipeline.reporting.style import DARK, color_of

HTML = Path(__file__).parent / "html"
FIGURES = {
    "comparison.svg": Markup(
        '<figure id="comparison" data-label="perplexity"></figure><table class="figures" id="figures"></table>'
        '<p class="hint">Drag over a chart to zoom in, click twice to zoom out.</p>'
        '<p class="hint"><label>Overlay the <code>histories.csv</code> of another commit '
        "(<code>git show HEAD~:results/report/histories.csv &gt; before.csv</code>): "
        '<input type="file" id="before" accept=".csv"></label> <output id="said"></output></p>'
    ),
    "curves.svg": Markup(""),  # the table of the first one has `train`
    "learning_rates.svg": Markup('<figure id="learning_rates" data-label="learning rate"></figure>'),
}


def page(text: str, results: Sequence[Result], course_report: CourseReport) -> str:
    """A self-contained file that needs no network; the same for the same results.

    text: the report in Markdown
    """
    markdown = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
    environment = Environment(loader=FileSystemLoader(HTML), autoescape=True, keep_trailing_newline=True)
    return environment.get_template("page.html").render(
        title=text.splitlines()[0].lstrip("# "),
        body=Markup(markdown.render(text)),
        data={"models": [_curves(index, result, course_report) for index, result in enumerate(results)]},
        style=_part("page.css"),
        script=_part("page.js"),
        library=_part("uplot/uPlot.iife.min.js"),
        library_style=_part("uplot/uPlot.min.css"),
    )


class _Renderer(RendererHTML):
    def image(self, tokens: Sequence[Any], index: int, *rest: Any) -> str:
        return FIGURES[str(tokens[index].attrs["src"])]


def _curves(index: int, result: Result, course_report: CourseReport) -> dict[str, Any]:
    color = color_of(index)
    return {
        "name": result.name,
        "colors": [color, DARK[color]],
        "best": result.best.epoch,
        "valid": [record.valid_perplexity for record in result.history],
        "train": [record.train_perplexity for record in result.history],
        "rate": [record.learning_rate for record in result.history],
        "course_report": course_report[result.name].valid if result.name in course_report else None,
    }


def _part(name: str) -> Markup:
    return Markup((HTML / name).read_text(encoding="utf-8"))
