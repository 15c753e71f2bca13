"""The settings of one model and its training run, validated: no wrong key, type or value gets any further."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]

# Values beyond these bounds are typing errors, or too large for float32 or a library. Whether a model within them fits
# into this machine is checked in `project.memory`.
Size = Annotated[int, Field(ge=1, le=2**20)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
WeightDecay = Annotated[float, Field(ge=0, le=1e6)]

MOST_GENERATIONS = 3  # of teachers, and teachers of teachers


class Strict(BaseModel):
    """Refuses unknown keys, wrong types and non-finite numbers; immutable. The text below a setting describes it."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class SGD(Strict):
    """Stochastic gradient descent with heavy-ball momentum and L2 weight decay, as in `torch.optim.SGD`."""

    name: Literal["sgd"]
    momentum: Probability
    """How much of the previous update is added to each one."""
    weight_decay: WeightDecay = 0.0
    """The pull of every weight towards zero, as a multiple of the weight added to its gradient."""


class AdamW(Strict):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101), as in `torch.optim.AdamW`."""

    name: Literal["adamw"]
    weight_decay: WeightDecay
    """The pull of every weight towards zero: each update takes away this share of it, times the learning rate."""


class Decay(Strict):
    """The rate is constant for `constant_epochs`, then multiplied by `decay` every epoch."""

    name: Literal["decay"]
    constant_epochs: Annotated[int, Field(ge=0, le=1_000_000)]
    """How many epochs the learning rate stays as it is."""
    decay: Annotated[float, Field(gt=0, le=1)]
    """What the learning rate is multiplied by in each later epoch."""


class Linear(Strict):
    """The rate rises linearly over the fraction `warmup` of all steps, then falls linearly to zero at the last."""

    name: Literal["linear"]
    warmup: Probability
    """The share of all steps in which the learning rate rises."""


class Distillation(Strict):
    """Learning what teachers predict, as well as the text. See `lm.distillation`."""

    share: Annotated[float, Field(gt=0, le=1)]
    """How much of each target the teachers predict; the rest is the word itself."""
    teachers: Annotated[list["Settings"], Field(min_length=1, max_length=100)]
    """The settings of each teacher, laid over the model's own. Teachers are trained first."""

    @field_validator("teachers")
    @classmethod
    def _generations_are_few(cls, teachers: list["Settings"]) -> list["Settings"]:
        if max(map(generations, teachers)) > MOST_GENERATIONS:
            raise PydanticCustomError("too_many_generations", "too_many_generations")
        return teachers


class Settings(Strict):
    """Everything that determines how one model is built and trained, apart from the corpus.

    Settings that are off by default may be left out. Adding one thus leaves existing params files, saved weights and
    checkpoint fingerprints as they are: these contain `essentials` only.
    """

    cell: Literal["lstm", "gru", "gru_textbook"]
    """The recurrent cell. `gru` applies its reset gate after the recurrent product, as cuDNN does, and is fast;
    `gru_textbook` applies it before, as the paper does."""
    num_layers: Annotated[int, Field(ge=1, le=1_000)]
    """Recurrent layers, one above the other."""
    hidden_size: Size
    """Units in each recurrent layer."""
    embedding_size: Size
    """Numbers that stand for a word at the input of the first layer."""
    tied_weights: bool = False
    """The softmax layer shares the embedding's weights: fewer parameters, and better on a small corpus. Takes
    `embedding_size` equal to `hidden_size`."""
    dropout: Probability = 0.0
    """The probability with which each number on a non-recurrent connection is dropped in training: between embedding
    and first layer, between layers, and before the softmax layer (Zaremba et al. 2014)."""
    embedding_dropout: Probability | None = None
    """The same between embedding and first layer alone; null: as `dropout`."""
    output_dropout: Probability | None = None
    """The same before the softmax layer alone; null: as `dropout`."""
    locked_dropout: bool = False
    """What is dropped is the same at all times of a window (variational dropout: Gal and Ghahramani 2016)."""
    weight_dropout: Probability = 0.0
    """The probability with which each weight that multiplies the state is dropped, for a window at a time (Merity et
    al. 2018)."""
    init_range: Annotated[float, Field(gt=0, le=100)]
    """Weights start uniform between minus this and this."""
    unigram_bias: bool = False
    """The softmax layer's bias starts with how frequent each word is. AdamW gains from it in short trainings."""
    distillation: Distillation | None = None
    """Learning from other models, which are trained first."""

    epochs: Count
    """How often the training text is read."""
    patience: Count | None = None
    """Training ends early when so many epochs in a row have not lowered the validation perplexity; null: never."""
    batch_size: Count
    """Columns into which the training text is cut; they are read side by side."""
    bptt: Count
    """Tokens in a window of each column: how far a gradient reaches back. The state is carried to the next window."""
    random_windows: bool = False
    """Each epoch cuts its windows elsewhere."""
    loss: Literal["mean", "sum_over_time"]
    """What is minimized: the loss per token, or summed over the window and averaged over the batch, which is `bptt`
    times as much."""
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")]
    """How a gradient becomes an update of the weights."""
    learning_rate: Rate
    """The size of a step, before `schedule` lowers it. SGD with momentum trains well at about 1, plain SGD at 20 to 30
    with a loss per token and clipping at 0.25, AdamW at 0.001 to 0.01."""
    schedule: Annotated[Decay | Linear, Field(discriminator="name")]
    """How the learning rate changes from step to step."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1e30)] | None
    """The largest L2 norm of the gradient over all weights: a longer one is scaled down to it; null: none is."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Decides the first weights, what dropout drops, and where random windows are cut."""
    device: Literal["auto", "cpu", "cuda"]
    """What it is trained on; `auto`: a GPU where there is one."""
    precision: Literal["auto", "tf32", "float32", "bfloat16"]
    """The type of matrix products in training; `auto`: TF32 on a GPU, bfloat16 on a CPU that multiplies it, else
    float32. Evaluation is always in float32."""
    cuda_graph: Literal["auto", "off"] = "auto"
    """On a GPU, steps are recorded once and replayed; `off`: taken one by one."""

    @field_validator("tied_weights")
    @classmethod
    def _tied_sizes_are_equal(cls, tied: bool, info: ValidationInfo) -> bool:
        sizes = {info.data.get("embedding_size"), info.data.get("hidden_size")} - {None}
        if tied and len(sizes) > 1:
            raise PydanticCustomError("tied_sizes_differ", "tied_sizes_differ")
        return tied

    @property
    def drops(self) -> bool:
        """Whether any dropout is used in training."""
        return any((self.dropout, self.embedding_dropout, self.output_dropout, self.weight_dropout))

    def essentials(self) -> dict[str, Any]:
        """All settings except those at their defaults."""
        return self.model_dump(exclude_defaults=True)

    @property
    def teachers(self) -> list["Settings"]:
        """The settings of the models that this one learns from."""
        return self.distillation.teachers if self.distillation else []


Distillation.model_rebuild(force=True)  # so that its fields know what its teachers are


def generations(settings: Settings) -> int:
    """1 for a model without teachers; 2 for one that has some, and so on."""
    return 1 + max(map(generations, settings.teachers), default=0)


class DynamicEvaluation(Strict):
    """How fast a model learns from the text it is tested on, and how strongly it is pulled back to its weights."""

    learning_rate: Rate
    """The size of a step, divided by the usual size of each weight's gradient."""
    decay: Annotated[float, Field(ge=0, le=1e6)]
    """How strongly each step pulls the weights back to the trained ones."""
    epsilon: Annotated[float, Field(ge=1e-30, le=1e6)]  # in float32, less would be a division by zero
    """Added to the usual size of a gradient, so that rare weights take no large steps."""
    bptt: Count
    """Tokens between two steps."""
