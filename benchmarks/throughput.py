"""How fast is a training step? The plain loop, the product's own, and the matrix products alone, in one run.

For both cells, on random tokens in the shapes of params.yaml:

- plain: nn modules, float32, `F.cross_entropy`, `SGD`, the loss read at every step, as one would write it first;
- product: `train_epoch` of pipeline.lm with each model's own settings;
- floor: the step's matrix products alone, in the product's precision.

The contestants take turns for several rounds, and each one's median counts, so that a machine whose speed drifts is
unfair to none. Memory is of a process of its own.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.lm.batching import Batches, detach
from pipeline.lm.device import choose_device, choose_precision, describe
from pipeline.lm.model import CELLS, build_model
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training, train_epoch
from pipeline.params import load_params

VOCAB_SIZE = 10_000
GATES = {"lstm": 4, "gru": 3}

Contestant = Callable[[], float]  # runs some steps -> seconds a step


class PlainModel(nn.Module):
    """What a person would write first."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.embedding = nn.Embedding(VOCAB_SIZE, settings.embedding_size)
        self.rnn = CELLS[settings.cell](
            settings.embedding_size, settings.hidden_size, settings.num_layers, dropout=settings.dropout
        )
        self.output = nn.Linear(settings.hidden_size, VOCAB_SIZE)

    def forward(self, tokens: Tensor, state: Tensor | tuple[Tensor, ...] | None) -> tuple[Tensor, Tensor]:
        hidden, state = self.rnn(self.dropout(self.embedding(tokens)), state)
        return self.output(self.dropout(hidden)), state


def plain_loop(settings: Settings, steps: int) -> Contestant:
    """The loop one would write first."""
    device = choose_device(settings.device)
    model = PlainModel(settings).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=settings.optimizer.momentum)
    batches = random_batches(settings, steps, device)

    def contestant() -> float:
        start, total, state = time.perf_counter(), 0.0, None
        for inputs, targets, _ in batches:
            logits, state = model(inputs, detach(state))
            loss = F.cross_entropy(logits.view(-1, VOCAB_SIZE), targets.view(-1))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm or float("inf"))
            optimizer.step()
            total += loss.item()
        return (time.perf_counter() - start) / steps

    return contestant


def product(settings: Settings, steps: int) -> Contestant:
    """The product's own epoch."""
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    training = Training(build_model(settings, VOCAB_SIZE).to(device), settings, precision)
    batches = random_batches(settings, steps, device)

    def contestant() -> float:
        start = time.perf_counter()
        train_epoch(training.model, training.optimizer, batches, settings, precision)
        return (time.perf_counter() - start) / steps

    return contestant


def floor(settings: Settings, steps: int) -> Contestant:
    """Every matrix product of a step, forward and backward, and nothing else."""
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
        start = time.perf_counter()
        for _ in range(steps):
            for shape in shapes:
                left, right = pairs[shape]
                left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps

    return contestant


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


def random_batches(settings: Settings, steps: int, device: torch.device) -> Batches:
    """So many whole windows of random tokens."""
    length = steps * settings.bptt * settings.batch_size + 1
    tokens = torch.randint(VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(1))
    return Batches(tokens.to(device), settings.batch_size, settings.bptt)


def peak_memory_mb(make: Callable[[Settings, int], Contestant], settings: Settings) -> float:
    """What a process holds that does nothing but this, after some steps, in MB; on CUDA, the most it ever held."""
    contestant = make(settings, 5)
    contestant()
    if choose_device(settings.device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return psutil.Process().memory_info().rss / 1e6  # getrusage's peak is inherited from the parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns that each contestant takes (default: 7)")
    parser.add_argument("--steps", type=int, default=10, help="steps in a turn (default: 10)")
    arguments = parser.parse_args()

    models = load_params().models
    makers: dict[str, tuple[Callable[[Settings, int], Contestant], Settings]] = {}
    for name, settings in models.items():
        if settings.cell not in {entry[1].cell for entry in makers.values()}:
            makers[f"plain {settings.cell}"] = (plain_loop, settings)
            makers[f"floor {settings.cell}"] = (floor, settings)
        makers[f"product {name}"] = (product, settings)

    first = next(iter(models.values()))
    device = choose_device(first.device)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, PyTorch {torch.__version__}")
    print(describe(first, device, choose_precision(first.precision, device)))
    contestants = {name: make(settings, arguments.steps) for name, (make, settings) in makers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(arguments.rounds + 1):
        for name, contestant in contestants.items():
            taken = contestant()
            if round_number:  # the first one warms up
                seconds[name].append(taken)
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        memory = {name: pool.submit(peak_memory_mb, make, settings) for name, (make, settings) in makers.items()}

    print(f"\nmedians of {arguments.rounds} rounds of {arguments.steps} steps\n")
    print("| | ms a step | tokens a second | times plain's speed | multiple of the floor | MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name, (_, settings) in makers.items():
        plain, lowest = median[f"plain {settings.cell}"], median[f"floor {settings.cell}"]
        tokens = settings.bptt * settings.batch_size
        print(
            f"| {name} | {median[name] * 1000:.1f} | {tokens / median[name]:,.0f} | {plain / median[name]:.2f}"
            f" | {median[name] / lowest:.2f} | {memory[name].result():,.0f} |"
        )


if __name__ == "__main__":
    main()
