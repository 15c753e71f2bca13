"""Loading a trained model by its name, for the commands that use one."""

from pipeline.artifacts.weights import TrainedModel, load_weights, weights_path
from pipeline.corpus.ids import VOCABULARY
from pipeline.lm.device import choose_device, set_up_process
from pipeline.project.console import UserError
from pipeline.project.files import MODELS, PROCESSED


def load_trained(name: str) -> TrainedModel:
    """A model with its best weights, on the GPU if there is one.

    Raises UserError if there is no such model, or if it was trained on a corpus other than the present one.
    """
    set_up_process()
    weights_file = weights_path(name)
    if not weights_file.exists():
        names = sorted(path.parent.name for path in MODELS.glob(f"*/{weights_file.name}"))
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
