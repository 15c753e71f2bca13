"""The page that `make ui` names, in a real browser on a first visit: what one sees of the runs first."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect
from ruamel.yaml import YAML

from pipeline.demo import workspace_environment
from pipeline.reporting.style import color_of
from tests.browser import Visit
from tests.services import free_port
from tests.test_clone import clone
from tests.workspaces import workspace

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

MODELS = ["lstm_dropout", "lstm", "gru_dropout", "gru"]

# What MLflow's own page complains of, whatever it shows: it asks for a login that there is not, and measures itself.
ITS_OWN = ("/mlflow/users/current", "ResizeObserver loop")

CHARTS = """() => [...document.querySelectorAll('.js-plotly-plot')].map(chart => ({
    width: chart.getBoundingClientRect().width,
    bottom: chart.getBoundingClientRect().bottom,
    colors: [...chart.querySelectorAll('.scatterlayer .trace path.js-line')].map(line => line.style.stroke),
}))"""
# On the first screen, with two more below it, once whatever loads above it has its height.
DRAWN = f"""() => {{
    const [first, ...others] = ({CHARTS})();
    return others.length === 2 && new Set(first.colors).size >= {len(MODELS)} && first.bottom < innerHeight;
}}"""


@contextmanager
def named_page(folder: Path, *command: str) -> Iterator[str]:
    """The page that a command names first once it answers; the command is ended as Ctrl-C would."""
    port = free_port()
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
    """On a first visit: one wide chart of validation perplexity with the four curves, as they are, and their names."""
    page = visit.page
    page.set_viewport_size({"width": 1500, "height": 1000})
    page.goto(address)
    page.wait_for_function(DRAWN)
    first = page.evaluate(CHARTS)[0]
    assert first["width"] >= 700
    assert set(first["colors"]) == {_as_page_has_it(color_of(index)) for index in range(len(MODELS))}
    for title in ("perplexity/valid", "perplexity/train", "training/learning_rate"):
        expect(page.get_by_text(title, exact=True).first).to_be_visible()
    names = [page.get_by_text(f"{model} (perplexity/valid)", exact=True) for model in MODELS]
    for name in names:
        expect(name).to_be_in_viewport()
    assert all(first["bottom"] - 10 < name.bounding_box()["y"] < first["bottom"] + 60 for name in names)
    expect(page.get_by_text("Ask questions about your")).to_have_count(0)
    see_model_training(visit)


def see_model_training(visit: Visit) -> None:
    """The side of MLflow's menu that has the registry of models, and no prompts; nothing asked of other machines."""
    expect(visit.page.get_by_role("link", name="Model registry")).to_be_visible()
    expect(visit.page.get_by_role("link", name="Prompts")).to_have_count(0)
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
        expect(visit.page.get_by_text("of the best weights, those of epoch 69")).to_be_in_viewport()
        see_model_training(visit)
        visit.page.get_by_text("Show more").click()
        picture = visit.page.locator("img[src*='curve.png']")
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 100


def test_what_was_trained_here_shows_as_four_curves_without_those_of_teachers(visit: Visit, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "workspace", epochs=2)
    params = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    params["models"]["gru"]["distillation"] = {"share": 0.5, "teachers": [{"hidden_size": 8}]}
    (folder / "params.yaml").write_text(json.dumps(params))
    for model in MODELS:
        command = [sys.executable, "-m", "pipeline.train", model]
        subprocess.run(command, cwd=folder, env=workspace_environment(), check=True, capture_output=True)
    with named_page(folder, sys.executable, "-m", "pipeline.ui", "--port", ":PORT:") as address:
        see_curves(visit, address)
        expect(visit.page.get_by_role("link", name="gru_teacher_1")).to_have_count(0)
