"""The settings of one model and its training run, validated: no wrong key, type or value gets any further."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]

# Values beyond these bounds are typing errors, or too large for float32 or a library. Whether a model within them fits
# into this machine is checked in `lm.memory`.
Size = Annotated[int, Field(ge=1, le=2**20)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
WeightDecay = Annotated[float, Field(ge=0, le=1e6)]


class Strict(BaseModel):
    """Refuses unknown keys, wrong types and non-finite numbers; immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class SGD(Strict):
    """Stochastic gradient descent with heavy-ball momentum and L2 weight decay, as in `torch.optim.SGD`."""

    name: Literal["sgd"]
    momentum: Probability
    weight_decay: WeightDecay = 0.0


class AdamW(Strict):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101), as in `torch.optim.AdamW`."""

    name: Literal["adamw"]
    weight_decay: WeightDecay


class Decay(Strict):
    """The rate is constant for `constant_epochs`, then multiplied by `decay` every epoch."""

    name: Literal["decay"]
    constant_epochs: Annotated[int, Field(ge=0, le=1_000_000)]
    decay: Annotated[float, Field(gt=0, le=1)]


class Linear(Strict):
    """The rate rises linearly over the fraction `warmup` of all steps, then falls linearly to zero at the last."""

    name: Literal["linear"]
    warmup: Probability


class Distillation(Strict):
    """Learning what teachers predict, as well as the text. See `lm.distillation`.

    share: of each target, what comes from the teachers
    teachers: the complete settings of each, which is trained first
    """

    share: Annotated[float, Field(gt=0, le=1)]
    teachers: Annotated[list["Settings"], Field(min_length=1, max_length=100)]


class Settings(Strict):
    """Everything that determines how one model is built and trained, apart from the corpus.

    Settings that are off by default may be left out. Adding one thus leaves existing params files, saved weights and
    checkpoint fingerprints as they are: these contain `essentials` only.
    """

    cell: Literal["lstm", "gru", "gru_textbook"]
    num_layers: Annotated[int, Field(ge=1, le=1_000)]
    hidden_size: Size
    embedding_size: Size
    tied_weights: bool = False
    dropout: Probability = 0.0
    embedding_dropout: Probability | None = None
    output_dropout: Probability | None = None
    locked_dropout: bool = False
    weight_dropout: Probability = 0.0
    init_range: Annotated[float, Field(gt=0, le=100)]
    unigram_bias: bool = False
    distillation: Distillation | None = None

    epochs: Count
    patience: Count | None = None
    batch_size: Count
    bptt: Count
    random_windows: bool = False
    loss: Literal["mean", "sum_over_time"]
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")]
    learning_rate: Rate
    schedule: Annotated[Decay | Linear, Field(discriminator="name")]
    max_grad_norm: Annotated[float, Field(gt=0, le=1e30)] | None

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "tf32", "float32", "bfloat16"]
    cuda_graph: Literal["auto", "off"] = "auto"

    @field_validator("tied_weights")
    @classmethod
    def _tied_sizes_are_equal(cls, tied: bool, info: ValidationInfo) -> bool:
        sizes = {info.data.get("embedding_size"), info.data.get("hidden_size")} - {None}
        if tied and len(sizes) > 1:
            raise ValueError("embedding_size and hidden_size have to be equal for that")
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

    def flat(self, *, essential: bool = False) -> dict[str, object]:
        """Settings by dotted name, such as `optimizer.momentum`: every one, or those that are not at their defaults.

        Of each teacher, such as `distillation.teachers.1.cell`, only what differs from the model itself.
        """
        flat, own = flatten(self.essentials() if essential else self.model_dump()), flatten(self.model_dump())
        if self.distillation:
            flat["distillation.teachers"] = len(self.teachers)
        for place, teacher in enumerate(self.teachers):
            settings = {name: value for name, value in teacher.flat().items() if name != "distillation"}
            differing = {name: value for name, value in settings.items() if name not in own or value != own[name]}
            flat |= {f"distillation.teachers.{place}.{name}": value for name, value in differing.items()}
        return flat


Distillation.model_rebuild(force=True)  # so that its fields know what its teachers are


class DynamicEvaluation(Strict):
    """How fast a model learns from the text it is tested on, and how strongly it is pulled back to its weights."""

    learning_rate: Rate
    decay: Annotated[float, Field(ge=0, le=1e6)]
    epsilon: Annotated[float, Field(ge=1e-30, le=1e6)]  # in float32, less would be a division by zero
    bptt: Count


def flatten(settings: Mapping[str, Any]) -> dict[str, object]:
    """Values by dotted name."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def overlay(shared: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a model's settings over the shared ones; a nested group with a different `name` replaces the shared group.

    Its teachers' settings are laid over its own.
    """
    merged = dict(shared)
    for key, value in overrides.items():
        group = shared.get(key)
        if isinstance(group, dict) and isinstance(value, dict) and value.get("name") in (None, group.get("name")):
            merged[key] = group | value
        else:
            merged[key] = value
    distillation = merged.get("distillation")
    if isinstance(distillation, dict) and isinstance(teachers := distillation.get("teachers"), list):
        own = {key: value for key, value in merged.items() if key != "distillation"}
        complete = [overlay(own, teacher) if isinstance(teacher, dict) else teacher for teacher in teachers]
        merged["distillation"] = distillation | {"teachers": complete}
    return merged
