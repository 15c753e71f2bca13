"""What is asked of the served model in a wrong type is a bad request that says so in a line."""

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from pipeline.tracking.served_model import PerplexityModel
from tests.small import save_small_model


@pytest.fixture
def model() -> PerplexityModel:
    path, _ = save_small_model("lstm", ("<eos>", "the", "<unk>"))
    served = PerplexityModel()
    served.load_context(SimpleNamespace(artifacts={"weights": str(path)}))
    return served


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "line 2: has no text"),
        (float("nan"), "line 2: has no text"),
        (5, "line 2: has no text: give a string"),
        (True, "line 2: has no text: give a string"),
        (["the"], "line 2: has no text: give a string"),
        ({"text": "the"}, "line 2: has no text: give a string"),
        ("the <eos>", "line 2: has the word <eos>"),
    ],
)
def test_a_value_that_is_no_sentence_is_a_bad_request(model: PerplexityModel, value: Any, reason: str) -> None:
    with pytest.raises(MlflowException) as error:
        model.predict(None, pd.DataFrame({"text": pd.Series(["the", value], dtype=object)}))
    assert error.value.message.startswith(reason)
    assert error.value.get_http_status_code() == 400


def test_sentences_are_scored(model: PerplexityModel) -> None:
    assert list(model.predict(None, pd.DataFrame({"text": ["the the", ""]})).tokens) == [3, 1]


@pytest.mark.parametrize(
    ("option", "value"),
    [("sentences", -1), ("sentences", 1001), ("max_words", 0), ("seed", -1), ("top_k", -1), ("temperature", 0.0)],
)
def test_an_option_out_of_range_is_a_bad_request(model: PerplexityModel, option: str, value: float) -> None:
    options = {"sentences": 1, "temperature": 1.0, "top_k": 0, "seed": 1, "max_words": 3} | {option: value}
    with pytest.raises(MlflowException, match=f"^{option}: {value} is not ") as error:
        model.predict(None, pd.DataFrame({"text": ["the"]}), options)
    assert error.value.get_http_status_code() == 400
