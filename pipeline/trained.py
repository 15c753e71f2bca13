"""A trained model by its name, for those who use it."""

from pipeline.console import UserError
from pipeline.corpus import VOCABULARY
from pipeline.files import MODELS, PROCESSED
from pipeline.lm.device import choose_device
from pipeline.weights import TrainedModel, load_weights


def load_trained(name: str) -> TrainedModel:
    """The best weights of a model, on the GPU if there is one.

    Raises UserError when there is no such model, and when it was trained on another corpus than the present one.
    """
    weights_file = MODELS / name / "model.safetensors"
    if not weights_file.exists():
        names = sorted(path.parent.name for path in MODELS.glob("*/model.safetensors"))
        there_are = f"there are {', '.join(names)}" if names else "there are none"
        remedy = "`dvc repro` trains what params.yaml names, `dvc checkout` restores it"
        raise UserError(f"no trained model {name!r} in {MODELS}, {there_are}: {remedy}")
    trained = load_weights(weights_file)
    vocabulary_file = PROCESSED / VOCABULARY
    vocabulary = "".join(f"{word}\n" for word in trained.vocabulary).encode()
    if vocabulary_file.exists() and vocabulary_file.read_bytes() != vocabulary:
        raise UserError(f"{weights_file} was trained on another corpus than {PROCESSED}: run `dvc repro`")
    trained.model.to(choose_device("auto"))
    return trained
