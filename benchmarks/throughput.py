"""How fast is a training step? Compares a plain PyTorch loop, this project's, and the matrix products alone.

For both cells, on random tokens in the shapes of params.yaml:

- plain: nn modules, float32, `F.cross_entropy`, `SGD`, the loss read at every step: a straightforward first version;
- product: `Training.train_epoch` of pipeline.lm with each model's settings;
- taught: the same with two teachers of the same size, an LSTM and a GRU, which have read the text in advance;
- floor: only the step's matrix products, in the product's precision.

Each contestant runs in a separate process. They take turns for several rounds, and the median counts, so that changes
in the machine's speed affect all of them alike. On CUDA, use complete epochs (`--steps 1859` is one of Penn Treebank),
because each epoch records its steps again. MB is the memory of a contestant's process at the end; on CUDA, the peak
memory of its tensors.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.lm.batching import Batches, Window
from pipeline.lm.device import (
    choose_device,
    choose_precision,
    chooses_tf32,
    set_up_process,
    tf32_products,
)
from pipeline.lm.distillation import Teacher, read
from pipeline.lm.model import LanguageModel, build_model
from pipeline.lm.settings import Distillation, Settings
from pipeline.lm.training import Training, train_layout
from pipeline.project.arguments import above
from pipeline.project.console import progress, run
from pipeline.project.hardware import describe
from pipeline.settings.params import load_params

VOCAB_SIZE = 10_000
PYTORCH_CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "gru_textbook": nn.GRU}
GATES = {"lstm": 4, "gru": 3, "gru_textbook": 3}

LABELS = {"plain": "plain {cell}", "floor": "floor {cell}", "product": "{model}", "taught": "{model}, taught"}

PlainState = Tensor | tuple[Tensor, ...] | None
Contestant = Callable[[], float]  # runs some steps -> seconds per step


class PlainModel(nn.Module):
    """A straightforward model of PyTorch's modules."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.embedding = nn.Embedding(VOCAB_SIZE, settings.embedding_size)
        self.rnn = PYTORCH_CELLS[settings.cell](
            settings.embedding_size, settings.hidden_size, settings.num_layers, dropout=settings.dropout
        )
        self.output = nn.Linear(settings.hidden_size, VOCAB_SIZE)

    def forward(self, tokens: Tensor, state: PlainState) -> tuple[Tensor, PlainState]:
        hidden, state = self.rnn(self.dropout(self.embedding(tokens)), state)
        return self.output(self.dropout(hidden)), state


def plain_step(
    model: PlainModel, optimizer: torch.optim.Optimizer, window: Window, state: PlainState, settings: Settings
) -> tuple[float, PlainState]:
    """A step of the plain loop -> the mean loss, and the state for the next window."""
    if state is not None:
        state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
    logits, state = model(window.inputs, state)
    loss = F.cross_entropy(logits.view(-1, VOCAB_SIZE), window.targets.view(-1))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm or float("inf"))
    optimizer.step()
    return loss.item(), state


def plain_loop(settings: Settings, steps: int) -> Contestant:
    """A straightforward training loop."""
    device = choose_device(settings.device)
    model = PlainModel(settings).to(device)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters())
    if settings.optimizer.name == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=settings.optimizer.momentum)
    batches = Batches(random_text(settings, steps).to(device), settings.batch_size, settings.bptt)

    def contestant() -> float:
        start, total, state = now(device), 0.0, None
        for window in batches:
            loss, state = plain_step(model, optimizer, window, state, settings)
            total += loss
        return (now(device) - start) / steps

    return contestant


def product(settings: Settings, steps: int) -> Contestant:
    """This project's training epoch."""
    set_up_process()
    text = random_text(settings, steps)
    teachers = [
        as_teacher(build_model(teacher, VOCAB_SIZE), train_layout(text, settings)) for teacher in settings.teachers
    ]
    training = Training(settings, text, text[:2], VOCAB_SIZE, teachers)

    def contestant() -> float:
        start = now(training.device)
        training.current = None
        training.train_epoch(epoch=1)
        return (now(training.device) - start) / steps

    return contestant


def taught(settings: Settings, steps: int) -> Contestant:
    """This project's training epoch with teachers."""
    alone = settings.model_copy(update={"distillation": None})
    teachers = [alone, alone.model_copy(update={"cell": "gru"})]
    return product(alone.model_copy(update={"distillation": Distillation(share=0.5, teachers=teachers)}), steps)


def as_teacher(teacher: LanguageModel, text: Batches) -> Teacher:
    """An untrained model as a teacher that has read the text, with features in half precision as in the product."""
    features = torch.cat([part.half() for part in read(teacher, text, "auto")])
    return Teacher(features, teacher.output.weight.detach(), teacher.output.bias.detach())


def floor(settings: Settings, steps: int) -> Contestant:
    """Only the matrix products of a step, forward and backward."""
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    shapes = list(matrix_products(settings))
    pairs = {
        (m, k, n): (
            torch.randn(m, k, device=device, dtype=precision),
            torch.randn(k, n, device=device, dtype=precision),
        )
        for m, k, n in set(shapes)
    }

    def contestant() -> float:
        start = now(device)
        with tf32_products(chooses_tf32(settings.precision, device)):
            for _ in range(steps):
                for shape in shapes:
                    left, right = pairs[shape]
                    left @ right
        return (now(device) - start) / steps

    return contestant


def now(device: torch.device) -> float:
    """The time in seconds, after a GPU has finished all work in progress."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def matrix_products(settings: Settings) -> Iterator[tuple[int, int, int]]:
    """The step's products [m, k] @ [k, n]: forward, gradient of the input, gradient of the weight."""
    tokens, hidden = settings.bptt * settings.batch_size, settings.hidden_size
    gates = GATES[settings.cell] * hidden
    for layer in range(settings.num_layers):
        inputs = settings.embedding_size if layer == 0 else hidden
        yield from [(tokens, inputs, gates), (tokens, gates, inputs), (gates, tokens, inputs)]
        yield from [(settings.batch_size, hidden, gates), (settings.batch_size, gates, hidden)] * settings.bptt
        yield (gates, tokens, hidden)
    yield from [(tokens, hidden, VOCAB_SIZE), (tokens, VOCAB_SIZE, hidden), (VOCAB_SIZE, tokens, hidden)]


def random_text(settings: Settings, steps: int) -> Tensor:
    """Tokens for this many full windows."""
    length = steps * settings.bptt * settings.batch_size + 1
    return torch.randint(VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(1))


MAKERS = {"plain": plain_loop, "product": product, "taught": taught, "floor": floor}


@cache
def contestant(kind: str, model: str, steps: int) -> Contestant:
    """This process's contestant, created at its first turn."""
    return MAKERS[kind](load_params().model(model), steps)


def take_turn(kind: str, model: str, steps: int) -> tuple[float, float]:
    """Seconds per step, and megabytes."""
    seconds = contestant(kind, model, steps)()
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return seconds, torch.cuda.max_memory_allocated() / 1e6
    return seconds, psutil.Process().memory_info().rss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=above(0), default=7, help="turns of each contestant (default: 7)")
    parser.add_argument("--steps", type=above(0), default=10, help="steps in a turn (default: 10)")
    arguments = parser.parse_args()

    models = load_params().models
    first_of: dict[str, str] = {}  # the first model of each cell
    for name, settings in models.items():
        first_of.setdefault(settings.cell, name)
    names = [("plain", name) for name in first_of.values()] + [("floor", name) for name in first_of.values()]
    names += [("product", name) for name in models] + [("taught", name) for name in first_of.values()]
    pools = {name: ProcessPoolExecutor(1, get_context("spawn")) for name in names}
    turns: dict[tuple[str, str], list[tuple[float, float]]] = {name: [] for name in names}
    with progress((arguments.rounds + 1) * len(names), "benchmark", "turn") as bar:
        for _ in range(arguments.rounds + 1):
            for name, pool in pools.items():
                turns[name].append(pool.submit(take_turn, *name, arguments.steps).result())
                bar.update()
    for pool in pools.values():
        pool.shutdown()

    first = next(iter(models.values()))
    device = choose_device(first.device)
    print(f"{processor()}, {os.cpu_count()} cores, PyTorch {torch.__version__}")
    print(describe(first, device, choose_precision(first.precision, device)))
    print(f"medians of {arguments.rounds} rounds of {arguments.steps} steps\n")
    print("| | ms a step | tokens a second | times plain's speed | multiple of the floor | MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    seconds = {name: statistics.median(turn[0] for turn in taken[1:]) for name, taken in turns.items()}  # 1st: warm-up
    for kind, model in names:
        settings = models[model]
        own = seconds[kind, model]
        plain, lowest = (seconds[other, first_of[settings.cell]] for other in ("plain", "floor"))
        print(
            f"| {LABELS[kind].format(model=model, cell=settings.cell)} | {own * 1000:.1f}"
            f" | {settings.bptt * settings.batch_size / own:,.0f} | {plain / own:.2f} | {own / lowest:.2f}"
            f" | {turns[kind, model][-1][1]:,.0f} |"
        )


def processor() -> str:
    """The processor's name, if the system gives one."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    run(main)
