"""The figures: the same bytes for the same numbers, and every model in them."""

import math
import re
import runpy
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reporting import curves, parallel_coordinates, style
from pipeline.reporting.style import History
from tests.histories import history
from tests.small import ROOT

Drawing = Callable[[Mapping[str, History], Path], None]
DRAWINGS: list[Drawing] = [curves.curves, curves.comparison, curves.learning_rates]
MODELS = {
    "lstm_dropout": history([150.0 - epoch for epoch in range(40)]),
    "lstm": history([120.0 + abs(epoch - 15) for epoch in range(40)]),
    "gru": history([140.0, 130.0, 131.0]),
}


def draw(drawing: Drawing, models: Mapping[str, History], name: str = "figure.svg") -> bytes:
    drawing(models, Path(name))
    return Path(name).read_bytes()


def texts(svg: bytes) -> set[str]:
    """The texts of a figure: matplotlib draws them as outlines and notes each in a comment."""
    return set(re.findall(r"<!-- (.*?) -->", svg.decode()))


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_the_same_histories_give_the_same_bytes_without_a_date(drawing: Drawing) -> None:
    first = draw(drawing, MODELS)
    draw(drawing, {"other": history([9.0])}, "other.svg")
    assert draw(drawing, MODELS) == first
    assert b"dc:date" not in first


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_another_number_changes_the_figure(drawing: Drawing) -> None:
    changed = MODELS | {"gru": history([140.0, 130.0, 129.0], rate=0.5)}
    assert draw(drawing, changed) != draw(drawing, MODELS)


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_every_colour_of_a_figure_has_one_for_the_dark(drawing: Drawing) -> None:
    models = {f"model_{index}": history([200.0, 100.0 + index, 150.0]) for index in range(9)}
    sheet, drawn = draw(drawing, models).decode().split("</style>", 1)
    for what, color in set(re.findall(r"(fill|stroke): (#\w+)", drawn)):
        assert f'[style*="{what}: {color}"]{{{what}:{style.DARK[color]}!important}}' in sheet


@pytest.mark.parametrize("number", range(1, 10))
@pytest.mark.parametrize("drawing", [curves.curves, curves.comparison])
def test_every_model_is_named_with_its_best_epoch(drawing: Drawing, number: int) -> None:
    models = {f"model_{index}": history([200.0, 100.0 + index, 150.0]) for index in range(number)}
    svg = draw(drawing, models)
    assert texts(svg) >= set(models) | {f"{100 + index}.00 at epoch 2" for index in range(number)}
    panels = len(re.findall(r'<g id="axes_\d+">', svg.decode()))
    assert panels == (number if drawing is curves.curves else 1)


@pytest.mark.parametrize("drawing", DRAWINGS)
@pytest.mark.parametrize("valid", [[100.0], [100.0] * 30, [1e30, 1e6, 50.0], [1.0, 1.0]])
def test_unusual_histories_are_drawn(drawing: Drawing, valid: list[float]) -> None:
    svg = draw(drawing, {"a": history(valid), "b": history([100.0, 90.0])})
    assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_the_four_models_of_the_default_recipe_fit_in_100_kb() -> None:
    models = {name: history([100.0 + (epoch * 7) % 11 for epoch in range(70)]) for name in "abcd"}
    for drawing in DRAWINGS:
        assert len(draw(drawing, models)) < 100_000


def test_models_with_the_same_schedule_share_one_line_and_its_label() -> None:
    shared = {"a": history([3.0, 2.0]), "b": history([4.0, 1.0])}
    assert "all models" in texts(draw(curves.learning_rates, shared))
    apart = shared | {"c": history([3.0, 2.0], rate=0.5)}
    assert texts(draw(curves.learning_rates, apart)) >= {"a, b", "c"}


def test_a_single_run_is_drawn_as_png() -> None:
    curves.curve(MODELS["gru"], Path("curve.png"))
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")


def test_recipes_are_drawn_with_their_test_perplexity_beside_published_ones() -> None:
    draw_recipes = runpy.run_path(str(ROOT / "docs/recipes/draw.py"))["draw"]
    draw_recipes({"small": (MODELS["gru"], 105.27)}, {"a paper": 114.5}, Path("recipes.svg"))
    assert texts(Path("recipes.svg").read_bytes()) >= {"small: 105.3", "114.5  a paper"}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10).map(sorted), st.floats(0, 0.3))
def test_labels_are_spread_in_order_inside_the_frame_and_apart(heights: list[float], gap: float) -> None:
    placed = curves.spaced(heights, gap)
    apart = min(gap, 1 / max(1, len(heights) - 1)) - 1e-9
    assert all(-1e-9 <= height <= 1 for height in placed)
    assert all(above - below >= apart for below, above in pairwise(placed))
    if all(above - below >= gap for below, above in pairwise(heights)):
        assert placed == pytest.approx(heights)


TRIALS = {
    "cell": ["lstm", "gru", "lstm", "gru"],
    "learning_rate": [0.5, 30.0, 0.001, 2.0],
    "optimizer.momentum": [0.8, 0.0, None, 0.8],
}


def draw_trials(columns: Mapping[str, list], perplexities: list[float], complete: list[bool]) -> bytes:
    parallel_coordinates.parallel_coordinates(
        columns, {"learning_rate": True}, perplexities, complete, Path("trials.svg")
    )
    return Path("trials.svg").read_bytes()


def test_a_sweep_is_drawn_with_every_setting_and_value_that_has_a_name() -> None:
    svg = draw_trials(TRIALS, [100.0, 120.0, 150.0, math.inf], [True, True, False, False])
    assert texts(svg) >= {*TRIALS, "validation perplexity", "lstm", "gru", "0.8", "none", "worse", "best", "complete"}
    assert svg == draw_trials(TRIALS, [100.0, 120.0, 150.0, math.inf], [True, True, False, False])
    assert svg != draw_trials(TRIALS, [100.0, 120.0, 151.0, math.inf], [True, True, False, False])


def test_a_range_keeps_its_scale_however_few_trials_there_are() -> None:
    svg = draw_trials(TRIALS, [100.0, 120.0, 150.0, 90.0], [True] * 4)
    assert texts(svg) >= {"0.01", "0.1", "1", "10"}


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=12), st.booleans())
def test_the_heights_of_a_scale_keep_the_order_of_its_numbers(numbers: list[float], logarithmic: bool) -> None:
    heights, marks = parallel_coordinates._scale(numbers, logarithmic, most_names=1)
    for (low, lower), (high, higher) in pairwise(sorted(zip(numbers, heights, strict=True))):
        assert lower <= higher or low == high
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in marks)


def test_a_setting_that_is_searched_in_the_logarithm_may_be_0_elsewhere() -> None:
    columns = TRIALS | {"learning_rate": [0.0, *(0.001 * 2**number for number in range(11))]}
    columns |= {name: values * 3 for name, values in TRIALS.items() if name != "learning_rate"}
    svg = draw_trials(columns, [100.0] * 12, [True] * 12)
    assert ElementTree.fromstring(svg).tag.endswith("svg")


@pytest.mark.parametrize("perplexities", [[100.0], [math.inf], [50.0, 50.0], [50.0, 1e30]])
def test_unusual_sweeps_are_drawn(perplexities: list[float]) -> None:
    columns = {name: values[: len(perplexities)] for name, values in TRIALS.items()}
    svg = draw_trials(columns, perplexities, [True, False][: len(perplexities)])
    assert ElementTree.fromstring(svg).tag.endswith("svg")
