"""The model that MLflow's registry holds: sentences in, perplexities out.

MLflow runs this file when it loads the model; the code it needs and the weights are next to it in the model's folder,
so it works from any folder and with any later state of the repository.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from pipeline.artifacts.weights import load_weights
from pipeline.inference.sentences import score_sentences
from pipeline.project.console import UserError


class PerplexityModel(PythonModel):
    """A column `text`, one sentence per row -> perplexity, tokens and unknown_words of each row, as in `score`."""

    def load_context(self, context: PythonModelContext) -> None:
        self.trained = load_weights(Path(context.artifacts["weights"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Raises MlflowException, which a server answers as a bad request, if a text cannot be scored."""
        texts = list(model_input["text"])
        for number, text in enumerate(texts, start=1):  # pandas holds JSON of any type as it came
            if not isinstance(text, str):
                kind = "" if text is None or text != text else f", but a {type(text).__name__}: give a string"
                raise MlflowException.invalid_parameter_value(f"line {number}: has no text{kind}")
        try:
            scores = list(score_sentences(self.trained, (text.split() for text in texts)))
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return pd.DataFrame(
            {
                "perplexity": [score.perplexity for score in scores],
                "tokens": [score.num_tokens for score in scores],
                "unknown_words": [len(score.sentence.unknown) for score in scores],
            }
        )


mlflow.models.set_model(PerplexityModel())
