"""The model in MLflow's registry: sentences in, perplexities out, or sentences that continue them.

MLflow runs this file when it loads the model; the code it needs and the weights are next to it in the model's folder,
so it works in any folder and with any later version of the repository.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from pipeline.artifacts.weights import load_weights
from pipeline.corpus.vocabulary import Encoder
from pipeline.inference.generation import continuations
from pipeline.inference.sentences import score_sentences
from pipeline.project.console import UserError

MOST = 1000  # sentences per row, and new words per sentence


class PerplexityModel(PythonModel):
    """A column `text`, one sentence per row -> perplexity, tokens and unknown_words of each row, as in `score`.

    With the parameter `sentences` above 0: that many continuations of each row in a column `text`, as in `generate`.
    """

    def load_context(self, context: PythonModelContext) -> None:
        self.trained = load_weights(Path(context.artifacts["weights"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Raises MlflowException, which a server reports as a bad request, if a text cannot be read."""
        texts = list(model_input["text"])
        for number, text in enumerate(texts, start=1):  # pandas keeps JSON values of any type
            if not isinstance(text, str):
                raise MlflowException.invalid_parameter_value(f"line {number}: has no text: give a string")
        try:
            return self._continue(texts, **params) if params and params["sentences"] else self._score(texts)
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _score(self, texts: list[str]) -> pd.DataFrame:
        scores = list(score_sentences(self.trained, (text.split() for text in texts)))
        return pd.DataFrame(
            {
                "perplexity": [score.perplexity for score in scores],
                "tokens": [score.num_tokens for score in scores],
                "unknown_words": [len(score.sentence.unknown) for score in scores],
            }
        )

    def _continue(
        self, texts: list[str], sentences: int, temperature: float, top_k: int, seed: int, max_words: int
    ) -> pd.DataFrame:
        limits = {"sentences": (1, sentences), "max_words": (1, max_words), "seed": (0, seed), "top_k": (0, top_k)}
        for name, (least, value) in limits.items():
            most = MOST if least else 2**63 - 1
            if not least <= value <= most:
                raise UserError(f"{name}: {value} is not from {least} to {most}")
        if not temperature > 0:
            raise UserError(f"temperature: {temperature} is not above 0")
        encoder = Encoder(self.trained.vocabulary, lower_case=self.trained.lower_case)
        prompts = [encoder.encode(text.split(), f"line {number}") for number, text in enumerate(texts, start=1)]
        drawn = [
            line
            for prompt in prompts
            for line, _ in continuations(self.trained, prompt, sentences, max_words, seed, temperature, top_k or None)
        ]
        return pd.DataFrame({"text": drawn})


mlflow.models.set_model(PerplexityModel())
