"""The page that `make ui` names, in a real browser: four curves of four colours are what one sees first."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from pipeline.demo import workspace_environment
from pipeline.reporting.style import color_of
from tests.browser import Visit
from tests.test_clone import clone
from tests.workspaces import workspace

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

MODELS = ["lstm_dropout", "lstm", "gru_dropout", "gru"]

# What MLflow's own page complains of, whatever it shows: it asks for a login that there is not, and measures itself.
ITS_OWN = ("/mlflow/users/current", "ResizeObserver loop")

CURVES = """() => [...document.querySelectorAll('.js-plotly-plot')].slice(0, 2).map(chart => ({
    bottom: chart.getBoundingClientRect().bottom,
    colors: [...chart.querySelectorAll('.scatterlayer .trace path.js-line')].map(line => line.style.stroke),
}))"""
# Two charts with a curve for each model, on the first screen once whatever loads above them has its height.
DRAWN = f"""() => ({CURVES})().filter(
    chart => new Set(chart.colors).size === {len(MODELS)} && chart.bottom < innerHeight
).length === 2"""


@contextmanager
def named_page(folder: Path, *command: str) -> Iterator[str]:
    """The page that a command names first once it answers; the command is ended as Ctrl-C would."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = tuple(part.replace(":PORT:", str(port)) for part in command)
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=workspace_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = ""
    try:
        while not (page := re.search(rf"http://127.0.0.1:{port}/\S+", said)):
            line = process.stdout.readline()
            assert line, said
            said += line
        yield page.group()
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert "warning" not in said.lower()


def see_curves(visit: Visit, address: str) -> None:
    page = visit.page
    page.goto(address)
    page.wait_for_function(DRAWN)
    wanted = [_as_page_has_it(color_of(index)) for index in range(len(MODELS))]
    for chart in page.evaluate(CURVES):
        assert set(chart["colors"]) == set(wanted)
    for title in ("perplexity/train", "perplexity/valid"):
        expect(page.get_by_text(title, exact=True).first).to_be_visible()
    assert [error for error in visit.errors if not any(own in error for own in ITS_OWN)] == []
    assert visit.asked_elsewhere == []


def _as_page_has_it(color: str) -> str:
    return "rgb({}, {}, {})".format(*(int(color[start : start + 2], 16) for start in (1, 3, 5)))


def test_a_fresh_clone_without_a_training_shows_the_four_curves_of_the_report(visit: Visit, tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    with named_page(folder, "make", "-o", ".venv/.complete", "ui", "PORT=:PORT:") as address:
        see_curves(visit, address)
        for model in MODELS:
            expect(visit.page.get_by_role("link", name=model, exact=True)).to_be_visible()
        visit.page.get_by_role("link", name="gru_dropout", exact=True).click()
        visit.page.get_by_text("Show more").click()
        picture = visit.page.locator("img[src*='curve.png']")
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 100


def test_what_was_trained_here_shows_as_four_curves(visit: Visit, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "workspace", epochs=2)
    for model in MODELS:
        command = [sys.executable, "-m", "pipeline.train", model]
        subprocess.run(command, cwd=folder, env=workspace_environment(), check=True, capture_output=True)
    with named_page(folder, sys.executable, "-m", "pipeline.ui", "--port", ":PORT:") as address:
        see_curves(visit, address)
